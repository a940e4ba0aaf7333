"""Which items have a row of the table, where there are fewer rows than items.

A table with dynamic ids has ``capacity`` rows. An item is *live* while a row is its own; all others are *unknown*
and share one more row, behind the others, that belongs to no item. The map decides by the events of global batches
alone, so that every rank that is told the same decides the same, on any number of ranks.

Shapes: ``V`` items, ``n`` distinct items of a global batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.config.schema import IdsConfig

IntArray = NDArray[np.int64]

_NEVER = -1
_NO_ID = -1


class Admitted(NamedTuple):
    """Items that were given rows.

    Attributes:
        ids: ``[a]`` int64.
        rows: ``[a]`` int64, the row of each; whatever stands there belonged to another item or to none.
        evicted: ``[e]`` int64, items that lost theirs; none of them is among ``ids``.
    """

    ids: IntArray
    rows: IntArray
    evicted: IntArray


class IdMap:
    """Rows of items that come and go.

    What happens at a step, in this order:

    1. The events of every item of the batch are counted, live or not.
    2. ``ttl`` alone: live items without an event in the last ``ttl_steps`` steps lose their rows.
    3. Unknown items of the batch that have ``admit_after`` events or more ask for rows, those with most events
       first, equal ones by lowest id. Free rows are given first, the lowest first.
    4. If none is free, ``lru`` takes the row of the live item whose last event is longest ago, ``lfu`` that of
       the live item with fewest events, if the newcomer has more; ``ttl`` takes none. Equal ones are compared by
       the other of these two numbers, then the lowest id goes. Items of the batch keep their rows.

    An item that loses its row is forgotten: when it comes again, it is a new one. Newcomers without a row stay
    unknown and keep their count.

    With ``admit_after`` 0, items are given free rows in the order of their ids before any event.

    Args:
        config: capacity, admission and eviction.
        num_ids: ``V``.
    """

    def __init__(self, config: IdsConfig, num_ids: int) -> None:
        assert config.capacity is not None, "the configuration's rules want it for dynamic ids"
        self.config, self.capacity = config, config.capacity
        self.rows = np.full(num_ids, self.unknown_row, np.int64)
        self.events = np.zeros(num_ids, np.int64)
        self.last_step = np.full(num_ids, _NEVER, np.int64)
        self._id_of_row = np.full(self.capacity, _NO_ID, np.int64)
        if config.admit_after == 0:
            first = np.arange(min(num_ids, self.capacity))
            self._give(first, first)

    @property
    def unknown_row(self) -> int:
        """The row that unknown items share."""
        return self.capacity

    def live_ids(self) -> IntArray:
        """Items that have a row, ascending."""
        return np.sort(self._id_of_row[self._id_of_row != _NO_ID])

    def observe(self, ids: IntArray, counts: IntArray, step: int) -> Admitted:
        """Take in a global batch.

        Args:
            ids: ``[n]`` int64, its items, ascending, each once.
            counts: ``[n]`` int64, events of each.
            step: step of the run, from 0.
        """
        self.events[ids] += counts
        self.last_step[ids] = step
        expired = self._expired(step)
        self._forget(expired)
        newcomers = ids[self.rows[ids] == self.unknown_row]
        newcomers = newcomers[self.events[newcomers] >= self.config.admit_after]
        if not newcomers.size:
            return Admitted(newcomers, newcomers, expired)
        newcomers = newcomers[np.lexsort((newcomers, -self.events[newcomers]))]
        free = np.flatnonzero(self._id_of_row == _NO_ID)[: newcomers.size]
        victims = self._victims(newcomers[free.size :], step)
        rows = np.concatenate([free, self.rows[victims]])
        self._forget(victims)
        admitted = newcomers[: rows.size]
        self._give(admitted, rows)
        return Admitted(admitted, rows, np.concatenate([expired, victims]))

    def reload(self) -> None:
        """Adopt ``rows``, into which those of a checkpoint were read."""
        live = np.flatnonzero(self.rows != self.unknown_row)
        self._id_of_row.fill(_NO_ID)
        self._id_of_row[self.rows[live]] = live

    def _expired(self, step: int) -> IntArray:
        """Live items whose time is over."""
        if self.config.ttl_steps is None:
            return np.zeros(0, np.int64)
        live = self._id_of_row[self._id_of_row != _NO_ID]
        return np.sort(live[self.last_step[live] < step - self.config.ttl_steps])

    def _victims(self, newcomers: IntArray, step: int) -> IntArray:
        """Live items that give their rows to as many of ``newcomers``, in that order."""
        if not newcomers.size or self.config.evict == "ttl":
            return newcomers[:0]
        # No row is free any more, so that every row has an id; those of the batch are of this step.
        idle = self._id_of_row[self._id_of_row != _NO_ID]
        idle = idle[self.last_step[idle] < step]
        keys = [self.last_step[idle], self.events[idle], idle]
        if self.config.evict == "lfu":
            keys = [keys[1], keys[0], idle]
        weakest = idle[_smallest(keys, min(newcomers.size, idle.size))]
        if self.config.evict == "lfu":
            # Newcomers become weaker and victims stronger along the list: once one does not win, none does.
            wins = self.events[newcomers[: weakest.size]] > self.events[weakest]
            weakest = weakest[wins]
        return weakest

    def _forget(self, ids: IntArray) -> None:
        self._id_of_row[self.rows[ids]] = _NO_ID
        self.rows[ids] = self.unknown_row
        self.events[ids], self.last_step[ids] = 0, _NEVER

    def _give(self, ids: IntArray, rows: IntArray) -> None:
        self.rows[ids] = rows
        self._id_of_row[rows] = ids


def _smallest(keys: list[IntArray], number: int) -> IntArray:
    """Positions of the ``number`` smallest, in ascending order; a later key decides where earlier ones are equal.

    Linear in the number of keys, which may be a million, and not a sort of all.

    Args:
        keys: ``[m]`` each; no two positions are equal in all of them.
        number: at most ``m``.
    """
    undecided, chosen, missing = np.arange(len(keys[0])), [], number
    for key in keys:
        if missing in (0, undecided.size):
            break
        values = key[undecided]
        limit = np.partition(values, missing - 1)[missing - 1]
        chosen.append(undecided[values < limit])
        missing -= chosen[-1].size
        undecided = undecided[values == limit]
    positions = np.concatenate([*chosen, undecided[:missing]])
    return positions[np.lexsort([key[positions] for key in reversed(keys)])]

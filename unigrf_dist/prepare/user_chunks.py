"""From a stream of events sorted by user to chunks of whole users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True)
class UserChunk:
    """Whole users.

    Attributes:
        raw_user_ids: ``[U]``.
        lengths: ``[U]`` int64, events of each.
        item_ids, behaviours, timestamps: ``[E]``, oldest first within a user.
        num_unsorted_users: users whose events did not come in this order.
    """

    raw_user_ids: pa.Array
    lengths: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    behaviours: NDArray[np.int16]
    timestamps: NDArray[np.int64]
    num_unsorted_users: int


def user_chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[UserChunk]:
    """Regroup sorted events.

    Args:
        batches: columns raw user, item id, behaviour code, timestamp, position in the raw files; sorted by user,
            then as they are to be written.
    """
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        users = batch.column(0)
        # Where the last user begins, who may go on in the next batch.
        last = pc.index(users, users[-1]).as_py()
        if last:
            yield _chunk(pa.Table.from_batches([*waiting, batch.slice(0, last)]))
            waiting = []
        waiting.append(batch.slice(last))
    if waiting:
        yield _chunk(pa.Table.from_batches(waiting))


class RowFeed:
    """Hands out the rows of a stream of batches, as many at a time as are asked for.

    Args:
        batches: at least as many rows as will be taken; none at all stands for rows without columns.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self._rest: pa.Table | None = None

    def take(self, rows: int) -> list[pa.Array]:
        """Columns of the next ``rows`` rows."""
        while self._rest is None or self._rest.num_rows < rows:
            batch = next(self._batches, None)
            if batch is None:
                return []
            more = pa.Table.from_batches([batch])
            self._rest = more if self._rest is None else pa.concat_tables([self._rest, more])
        taken, self._rest = self._rest.slice(0, rows), self._rest.slice(rows)
        return [column.combine_chunks() for column in taken.columns]


def _chunk(events: pa.Table) -> UserChunk:
    users, *columns = (column.combine_chunks() for column in events.columns)
    item_ids, behaviours, timestamps, position = (column.to_numpy() for column in columns)
    changes = pc.not_equal(users.slice(1), users.slice(0, len(users) - 1)).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    backward = (np.diff(position) < 0) & ~changes
    unsorted = np.unique(np.searchsorted(starts, np.flatnonzero(backward), side="right"))
    return UserChunk(
        raw_user_ids=users.take(pa.array(starts)),
        lengths=np.diff(np.append(starts, len(users))),
        item_ids=item_ids,
        behaviours=behaviours,
        timestamps=timestamps,
        num_unsorted_users=len(unsorted),
    )

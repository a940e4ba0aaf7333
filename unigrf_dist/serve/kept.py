"""Keys and values of users' histories, kept between requests.

A window that has only grown is read from its first new event on, two tokens for each. Whether it has only grown is
seen in the events themselves, so that nothing which happens elsewhere (an event that comes late, a window that
slides, a user whose features changed) can make what is kept wrong.

Where a user has more events than the model's window, the next event drops the oldest one and every position moves,
so that nothing of what was kept holds: such a window is read anew, at the cost of a first request.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from unigrf_dist.data.sequences import Sequences
from unigrf_dist.model.request_pass import KeptHistory, read_histories
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.serve.dense_tables import DenseTables

if TYPE_CHECKING:
    from collections.abc import Iterator

How = Literal["kept", "extended", "read"]
"""Nothing was read, the new events were, or the whole window was."""


@dataclass(frozen=True)
class _Entry:
    window: Sequences
    kept: KeptHistory

    @property
    def num_bytes(self) -> int:
        window = self.window
        arrays = (window.item_ids, window.behaviours, window.timestamps)
        return self.kept.num_bytes + sum(array.nbytes for array in arrays)


class KeptHistories:
    """What one model has read of users' histories, the least recently asked for forgotten first. Thread-safe.

    It belongs to one model: a new version begins with an empty one of its own.

    Args:
        model: the dense model, whose weights must not change.
        tables: its tables, likewise.
        max_bytes: memory for keys, values and events; 0 keeps nothing.
    """

    def __init__(self, model: UniGRF, tables: DenseTables, *, max_bytes: int) -> None:
        self._model, self._tables, self.max_bytes = model, tables, max_bytes
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._busy: dict[Hashable, tuple[threading.Lock, int]] = {}
        self.counts: Counter[How] = Counter()

    def __len__(self) -> int:
        """Users of whom something is kept."""
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Memory of what is kept."""
        return self._num_bytes

    def read(self, user: Hashable, window: Sequences, asked: Tensor) -> KeptHistory:
        """The history of one user, as ``read_histories`` gives it.

        Args:
            user: who it is; parallel calls for one user wait for each other, so that nothing is read twice.
            window: the user's latest events, one or more, as many as the model takes at most.
            asked: ``[1]`` int64, seconds: the moment of the request.
        """
        batch = window.to_batch()
        with self._alone(user):
            entry = self._get(user)
            known = None if entry is None or not _begins_with(window, entry.window) else entry.kept
            how: How = "read" if known is None else "extended"
            if known is not None and int(known.offsets[-1]) == 2 * len(window.item_ids):
                how, history = "kept", known
            else:
                history = read_histories(self._model, self._tables.events(batch), batch, asked, known)
                self._put(user, _Entry(window, history.lasting(self._model)))
        with self._lock:
            self.counts[how] += 1
        return history

    def forget(self, user: Hashable) -> None:
        """Keep nothing of ``user``."""
        with self._lock:
            self._drop(user)

    def _get(self, user: Hashable) -> _Entry | None:
        with self._lock:
            if user in self._entries:
                self._entries.move_to_end(user)
            return self._entries.get(user)

    def _put(self, user: Hashable, entry: _Entry) -> None:
        with self._lock:
            self._drop(user)
            if entry.num_bytes > self.max_bytes:
                return
            self._entries[user] = entry
            self._num_bytes += entry.num_bytes
            while self._num_bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))

    def _drop(self, user: Hashable) -> None:
        if (entry := self._entries.pop(user, None)) is not None:
            self._num_bytes -= entry.num_bytes

    @contextmanager
    def _alone(self, user: Hashable) -> Iterator[None]:
        """One thread at a time per user; a lock lives as long as somebody holds or waits for it."""
        with self._lock:
            lock, waiting = self._busy.get(user, (threading.Lock(), 0))
            self._busy[user] = (lock, waiting + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, waiting = self._busy.pop(user)
                if waiting > 1:
                    self._busy[user] = (lock, waiting - 1)


def _begins_with(window: Sequences, earlier: Sequences) -> bool:
    """Whether the first events of one user's ``window`` are all of ``earlier``, under the same user features."""
    count = len(earlier.item_ids)
    if len(window.item_ids) < count:
        return False
    same_events = (
        np.array_equal(window.item_ids[:count], earlier.item_ids)
        and np.array_equal(window.behaviours[:count], earlier.behaviours)
        and np.array_equal(window.timestamps[:count], earlier.timestamps)
    )
    if window.user_features is None or earlier.user_features is None:
        return same_events and window.user_features is earlier.user_features
    return same_events and np.array_equal(window.user_features, earlier.user_features)


def fresh_read(model: UniGRF, tables: DenseTables, window: Sequences, asked: Tensor) -> KeptHistory:
    """The history of one user, read from its first event on; arguments as `KeptHistories.read`."""
    batch = window.to_batch()
    with torch.no_grad():
        return read_histories(model, tables.events(batch), batch, asked)

"""Users' histories as they are now: what the data set holds, and the events that were appended since.

Appended events live in this process alone and are gone when it ends; they outlive a swap, because they are held
with raw ids.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unigrf_dist.data.sequences import Sequences
from unigrf_dist.errors import UserError
from unigrf_dist.serve.server.versions import Version
from unigrf_dist.serve.vocabulary import Event, RawId

_READ_USERS = 10_000
"""Users whose histories are held in memory as arrays: reading one from the data set takes a row group."""


class LiveHistory(NamedTuple):
    """All known events of one user, and how many appended ones the catalogue does not know."""

    events: Sequences
    num_unknown: int


class Full(UserError):
    """No more events can be appended."""


class LiveUsers:
    """Thread-safe.

    Args:
        max_events: appended events held in memory, of all users together.
    """

    def __init__(self, *, max_events: int) -> None:
        self._max_events, self._num_events = max_events, 0
        self._appended: dict[RawId, list[Event]] = {}
        # With each history how many of the appended events it has.
        self._read: OrderedDict[tuple[str, RawId], tuple[int, LiveHistory]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_events(self) -> int:
        """Appended events held in memory."""
        return self._num_events

    def append(self, user: RawId, events: Sequence[Event]) -> None:
        """Append events to the history of a user, known before or not.

        Raises:
            Full: the memory for events is used up; none of them was appended.
        """
        with self._lock:
            if self._num_events + len(events) > self._max_events:
                raise Full(
                    f"{self._num_events:,} events are held, {self._max_events:,} is the limit (--max-events)"
                )
            self._appended.setdefault(user, []).extend(events)
            self._num_events += len(events)

    def history(self, version: Version, user: RawId) -> LiveHistory:
        """All known events of ``user``, sorted by time; equal times in the order in which they came.

        Raises:
            UserError: the id is of another type than the data set's.
        """
        key = (version.name, user)
        with self._lock:
            appended = self._appended.get(user, [])
            count, known = self._read.get(key, (0, None))
            new = appended[count:]
            if known is not None:
                self._read.move_to_end(key)
                if not new:
                    return known
        if known is None:
            known = LiveHistory(version.data_set_history(user), 0)
        if new:
            later = version.recommender.vocabulary.history(new)
            known = LiveHistory(_merged(known.events, later.sequences), known.num_unknown + later.num_unknown)
        with self._lock:
            self._read[key] = (count + len(new), known)
            if len(self._read) > _READ_USERS:
                self._read.popitem(last=False)
        return known


def _merged(stored: Sequences, appended: Sequences) -> Sequences:
    """The events of both, of one user, by time, stored ones first; the codes of the stored user hold."""
    items, behaviours, times = (
        np.concatenate([getattr(stored, name), getattr(appended, name)])
        for name in ("item_ids", "behaviours", "timestamps")
    )
    order = np.argsort(times, kind="stable")
    return Sequences(
        stored.user_ids,
        np.array([0, len(order)]),
        items[order],
        behaviours[order],
        times[order],
        stored.user_features,
    )

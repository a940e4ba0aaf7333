"""Rows of the training stream: which training events of a user a row of a batch holds, and how many are context.

``recent`` gives each user one row, with its latest events. ``all`` cuts a history into overlapping chunks, so
that every event is trained on in exactly one of them: with a window of ``W`` events and ``c`` of context, chunk 0
trains on the events ``0:W``, and chunk ``k > 0`` on the ``W - c`` after those of chunk ``k - 1``. Each chunk but
the first begins as far before them as fills the window: ``c`` events before, or more where it is the last and
short. So the last chunk of a user is the row that ``recent`` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.sequences import IntArray, Sequences, concatenate, offsets_of

BoolArray = NDArray[np.bool_]


class Spans(NamedTuple):
    """Rows as positions inside their users' training events.

    Attributes:
        starts, stops: ``[N]`` int64, the row's events.
        context: ``[N]`` int64, how many of them, from the first, are trained on in another row.
        is_latest: ``[N]`` bool, whether the row ends with its user's latest training event.
    """

    starts: IntArray
    stops: IntArray
    context: IntArray
    is_latest: BoolArray


@dataclass(frozen=True)
class RowPlan:
    """How training events become rows.

    Attributes:
        max_events: events of a row before its last one, ``W - 1``.
        chunk_context: ``c`` of ``all``; None for ``recent``.

    Raises:
        ValueError: ``chunk_context`` is outside ``[1, max_events]``: without context the first event of a chunk
            would have no query that could retrieve it, and with more a chunk would train on nothing.
    """

    max_events: int
    chunk_context: int | None = None

    def __post_init__(self) -> None:
        if self.chunk_context is not None and not 1 <= self.chunk_context <= self.max_events:
            raise ValueError(f"chunk_context must be in [1, {self.max_events}], got {self.chunk_context}")

    @property
    def one_per_user(self) -> bool:
        """Whether every user has one row, however long its history is."""
        return self.chunk_context is None

    def num_rows(self, trained: IntArray) -> IntArray:
        """``[U]`` int64 rows of users with ``trained`` ``[U]`` training events, at least one each."""
        if self.chunk_context is None:
            return np.ones_like(trained)
        beyond = np.maximum(trained - self._window, 0)
        return 1 - (-beyond // (self._window - self.chunk_context))

    def spans(self, trained: IntArray, numbers: IntArray) -> Spans:
        """The rows ``numbers`` ``[N]`` (from 0) of users with ``trained`` ``[N]`` training events."""
        if self.chunk_context is None:
            starts = np.maximum(trained - self._window, 0)
            return Spans(starts, trained, np.zeros_like(starts), np.ones(len(starts), np.bool_))
        stride = self._window - self.chunk_context
        stops = np.minimum(self._window + numbers * stride, trained)
        starts = np.maximum(stops - self._window, 0)
        first_trained = np.where(numbers > 0, self._window + (numbers - 1) * stride, 0)
        return Spans(starts, stops, first_trained - starts, stops == trained)

    def all_spans(self, trained: IntArray) -> Spans:
        """All rows of users with ``trained`` ``[U]`` training events, user by user."""
        users, numbers = _users_of_rows(self.num_rows(trained), slice(0, int(self.num_rows(trained).sum())))
        return self.spans(trained[users], numbers)

    @property
    def _window(self) -> int:
        return self.max_events + 1


@dataclass(frozen=True)
class Prior:
    """What the users of ``N`` rows met before them. Rows of one user share its history, which may be long.

    Attributes:
        histories: events of users.
        users: ``[N]`` int64, index of each row's user among them.
        lengths: ``[N]`` int64, how many of that user's first events are before the row.
    """

    histories: Sequences
    users: IntArray
    lengths: IntArray

    @staticmethod
    def cut(sequences: Sequences, users: IntArray, starts: IntArray) -> Prior:
        """The events before ``starts`` ``[N]`` of the users ``users`` ``[N]``, which ascend without a gap."""
        first = int(users[0]) if len(users) else 0
        owners = users - first
        longest = np.zeros(int(owners[-1]) + 1 if len(owners) else 0, dtype=np.int64)
        np.maximum.at(longest, owners, starts)
        whole = slice(first, first + len(longest))
        return Prior(sequences.cut(whole, np.zeros_like(longest), longest), owners, starts)

    @staticmethod
    def concatenate(parts: Sequence[Prior]) -> Prior:
        """The rows of ``parts``, in order. ``parts`` must not be empty."""
        first = offsets_of(np.array([part.histories.num_users for part in parts]))
        return Prior(
            concatenate([part.histories for part in parts]),
            np.concatenate([part.users + begin for part, begin in zip(parts, first, strict=False)]),
            np.concatenate([part.lengths for part in parts]),
        )

    def take(self, index: IntArray) -> Prior:
        """The rows ``index``, in that order."""
        return Prior(self.histories, self.users[index], self.lengths[index])

    def items(self) -> tuple[IntArray, IntArray]:
        """``[S]`` item ids, row by row, and ``[N + 1]`` bounds of each row's."""
        cut = self.histories.cut(self.users, np.zeros_like(self.lengths), self.lengths)
        return cut.item_ids, cut.offsets


@dataclass(frozen=True)
class Rows:
    """``N`` rows.

    Attributes:
        events: the rows' events.
        context, is_latest: see ``Spans``; None where each user has one row.
        prior: training events of each row's user before ``events``; None unless requested.
    """

    events: Sequences
    context: IntArray | None = None
    is_latest: BoolArray | None = None
    prior: Prior | None = None

    @staticmethod
    def cut(sequences: Sequences, trained: IntArray, rows: slice, plan: RowPlan, *, prior: bool) -> Rows:
        """The rows ``rows`` of the users of ``sequences``, whose rows lie end to end.

        Args:
            sequences: all events of ``U`` users.
            trained: ``[U]`` int64, how many of each user's first events are for training.
            rows: a range among their rows.
            plan: how events become rows.
            prior: whether ``prior`` is wanted.
        """
        users, numbers = _users_of_rows(plan.num_rows(trained), rows)
        spans = plan.spans(trained[users], numbers)
        return Rows(
            sequences.cut(users, spans.starts, spans.stops),
            None if plan.one_per_user else spans.context,
            None if plan.one_per_user else spans.is_latest,
            Prior.cut(sequences, users, spans.starts) if prior else None,
        )

    @staticmethod
    def concatenate(parts: Sequence[Rows]) -> Rows:
        """All rows of ``parts``, of one plan, in order. ``parts`` must not be empty."""
        if len(parts) == 1:
            return parts[0]
        context = [part.context for part in parts if part.context is not None]
        is_latest = [part.is_latest for part in parts if part.is_latest is not None]
        prior = [part.prior for part in parts if part.prior is not None]
        return Rows(
            concatenate([part.events for part in parts]),
            np.concatenate(context) if context else None,
            np.concatenate(is_latest) if is_latest else None,
            Prior.concatenate(prior) if prior else None,
        )

    def take(self, index: IntArray) -> Rows:
        """The rows ``index``, in that order."""
        return Rows(
            self.events.take(index),
            None if self.context is None else self.context[index],
            None if self.is_latest is None else self.is_latest[index],
            None if self.prior is None else self.prior.take(index),
        )

    def to_batch(self) -> JaggedBatch:
        """The same rows as CPU tensors."""
        batch = self.events.to_batch()
        if self.context is not None and self.is_latest is not None:
            context, known = torch.from_numpy(self.context), batch.context_lengths
            batch = replace(
                batch,
                # What another row trains on, and what was trained on before an appended day.
                context_lengths=context if known is None else torch.maximum(context, known),
                is_latest=torch.from_numpy(self.is_latest),
            )
        if self.prior is None:
            return batch
        items, offsets = self.prior.items()
        return replace(batch, prior_item_ids=torch.from_numpy(items), prior_offsets=torch.from_numpy(offsets))


def _users_of_rows(num_rows: IntArray, rows: slice) -> tuple[IntArray, IntArray]:
    """``[N]`` index of the user of each row, and ``[N]`` the row's number among those of its user."""
    offsets = offsets_of(num_rows)
    index = np.arange(rows.start, rows.stop)
    users = np.searchsorted(offsets, index, side="right") - 1
    return users, index - offsets[users]

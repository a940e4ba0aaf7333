"""The evaluation stream: every user's held-out event after its history, exactly once over all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.dataset import Dataset, RowGroupReader, RowGroups
from unigrf_dist.data.prefetch import prefetched
from unigrf_dist.data.sequences import Sequences, concatenate, offsets_of
from unigrf_dist.data.split import Split, has_held_out, held_out_position
from unigrf_dist.data.stream import check_partition


@dataclass(frozen=True)
class EvaluationBatch:
    """Users to evaluate.

    Attributes:
        batch: ``B`` users; the last event of each is the held-out one, the most recent history comes before it.
        seen_item_ids: ``[S]`` int64, items of all events before the held-out one, user by user, whether or not
            they are among the ``max_events`` that ``batch`` holds.
        seen_offsets: ``[B + 1]`` int64, bounds of each user's items in ``seen_item_ids``.
    """

    batch: JaggedBatch
    seen_item_ids: Tensor
    seen_offsets: Tensor

    @staticmethod
    def empty() -> EvaluationBatch:
        """A batch without users."""
        none = JaggedBatch.empty()
        return EvaluationBatch(none, none.item_ids, none.offsets)


class EvaluationStream:
    """All users that have a held-out event, each exactly once over all ranks.

    Batch ``j`` covers the users ``j * batch_users`` and following of the data set's order, whatever the number
    of ranks, and goes to rank ``j % world_size``. Every rank yields the same number of batches; batches may be
    smaller than ``batch_users`` (users without a held-out event drop out) or empty. Can be iterated repeatedly.

    Args:
        dataset: data set to read.
        split: which held-out event to evaluate. The history of a test event includes the validation event.
        batch_users: users that a batch covers.
        max_events: most recent events of history that are kept.
        rank: rank of this process.
        world_size: number of ranks.
        prefetch: batches prepared ahead of the consumer.

    Raises:
        ValueError: a size is below 1, ``rank`` is outside ``[0, world_size)``, or ``split`` is unknown.
        UserError: while iterating, if a shard cannot be read.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        split: Split,
        batch_users: int,
        max_events: int,
        rank: int,
        world_size: int,
        prefetch: int = 2,
    ) -> None:
        check_partition(batch_users=batch_users, max_events=max_events, rank=rank, world_size=world_size)
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', got {split!r}")
        self._dataset, self._split = dataset, split
        self._groups = RowGroups.of(dataset.manifest)
        self._batch_users, self._max_events = batch_users, max_events
        self._rank, self._world_size, self._prefetch = rank, world_size, prefetch

    def __len__(self) -> int:
        """Batches of every rank."""
        num_batches = -(-self._dataset.num_users // self._batch_users)
        return -(-num_batches // self._world_size)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        return prefetched(self._batches(), self._prefetch)

    def _batches(self) -> Iterator[EvaluationBatch]:
        reader = _UserReader(self._dataset, self._groups)
        for step in range(len(self)):
            first = (step * self._world_size + self._rank) * self._batch_users
            stop = min(first + self._batch_users, self._dataset.num_users)
            yield self._cut(reader.read(first, stop)) if first < stop else EvaluationBatch.empty()

    def _cut(self, sequences: Sequences) -> EvaluationBatch:
        users = np.flatnonzero(has_held_out(sequences.lengths))
        target = held_out_position(sequences.lengths[users], self._split)
        batch = sequences.cut(users, np.maximum(target - self._max_events, 0), target + 1)
        seen = sequences.cut(users, np.zeros_like(target), target)
        return EvaluationBatch(batch.to_batch(), torch.from_numpy(seen.item_ids), torch.from_numpy(seen.offsets))


class _UserReader:
    """Reads ranges of users in the data set's order; caches the last row group, which two ranges may share."""

    def __init__(self, dataset: Dataset, groups: RowGroups) -> None:
        self._reader, self._groups = RowGroupReader(dataset), groups
        self._offsets = offsets_of(groups.num_users)
        self._last: tuple[int, Sequences] | None = None

    def read(self, first: int, stop: int) -> Sequences:
        """The users ``first:stop``; the range must not be empty."""
        parts = []
        group = int(np.searchsorted(self._offsets, first, side="right")) - 1
        while group < len(self._groups.num_users) and self._offsets[group] < stop:
            begin = int(self._offsets[group])
            parts.append(self._group(group).take(slice(max(first - begin, 0), stop - begin)))
            group += 1
        return concatenate(parts)

    def _group(self, group: int) -> Sequences:
        if self._last is None or self._last[0] != group:
            read = self._reader.read(int(self._groups.shard[group]), int(self._groups.group[group]))
            self._last = (group, read)
        return self._last[1]

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
from unigrf_dist.data.seen_rule import SeenRule
from unigrf_dist.data.sequences import Sequences, concatenate, offsets_of
from unigrf_dist.data.split import Split, has_held_out, held_out_position
from unigrf_dist.data.stream import check_partition


@dataclass(frozen=True)
class EvaluationBatch:
    """Users to evaluate.

    Attributes:
        batch: ``B`` users; the last event of each is the held-out one, the most recent history comes before it.
        seen_item_ids: ``[S]`` int64, items that leave the ranking, user by user: under the rule ``exclude`` those
            of all events before the held-out one, whether or not they are among the ``max_events`` that ``batch``
            holds; under ``window`` of those; under ``keep`` none.
        seen_offsets: ``[B + 1]`` int64, bounds of each user's items in ``seen_item_ids``.
        target_repeats: ``[B]`` bool, whether the user had met the held-out item before, in the window or not.
    """

    batch: JaggedBatch
    seen_item_ids: Tensor
    seen_offsets: Tensor
    target_repeats: Tensor

    @property
    def target_removed(self) -> Tensor:
        """``[B]`` bool, whether the held-out item is among those that leave the ranking."""
        return _holds(self.seen_item_ids, self.seen_offsets, self.batch)

    @staticmethod
    def empty() -> EvaluationBatch:
        """A batch without users."""
        none = JaggedBatch.empty()
        return EvaluationBatch(none, none.item_ids, none.offsets, torch.zeros(0, dtype=torch.bool))


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
        seen: which items leave the ranking.
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
        seen: SeenRule = "exclude",
        prefetch: int = 2,
    ) -> None:
        check_partition(batch_users=batch_users, max_events=max_events, rank=rank, world_size=world_size)
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', got {split!r}")
        self._dataset, self._split, self._seen = dataset, split, seen
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
        window = np.maximum(target - self._max_events, 0)
        batch = sequences.cut(users, window, target + 1).to_batch()
        history = sequences.cut(users, np.zeros_like(target), target)
        seen = sequences.cut(users, {"exclude": 0 * target, "window": window, "keep": target}[self._seen], target)
        return EvaluationBatch(
            batch,
            torch.from_numpy(seen.item_ids),
            torch.from_numpy(seen.offsets),
            _holds(torch.from_numpy(history.item_ids), torch.from_numpy(history.offsets), batch),
        )


def _holds(items: Tensor, offsets: Tensor, batch: JaggedBatch) -> Tensor:
    """``[B]`` bool, whether ``items[offsets[u]:offsets[u + 1]]`` hold the last item of each user ``u``."""
    rows = torch.arange(batch.num_users).repeat_interleave(offsets.diff())
    targets = batch.item_ids[batch.offsets[1:] - 1]
    return rows[items == targets[rows]].bincount(minlength=batch.num_users) > 0


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

"""The training stream: every rank's partition of an epoch as jagged batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.dataset import Dataset, RowGroupReader, RowGroups
from unigrf_dist.data.prefetch import prefetched
from unigrf_dist.data.sequences import IntArray, Sequences, concatenate, offsets_of, ragged_index
from unigrf_dist.data.split import num_training_events

# Keys of independent random streams of one seed.
_GROUP_ORDER, _SLICE_ORDER, _USER_ORDER = 0, 1, 2


class TrainStream:
    """Training events of all users, partitioned among ranks and reshuffled in every epoch.

    A random order of the row groups of all shards, the same for all epochs, is split into ``world_size``
    partitions with equally many users (± one), so that a row group may be sliced between two ranks. A rank keeps
    its partition in all epochs, and with it the state it holds per user. In every epoch it reads the row-group
    slices of its partition in a new random order, fills a shuffle buffer with them and shuffles the buffer's
    users. Every user comes exactly once per epoch; every rank yields the same number of batches, the last of
    which may be short or empty.

    Args:
        dataset: data set to read.
        batch_users: users per rank and step.
        max_events: a user's most recent ``max_events + 1`` training events are kept: history and one target.
        rank: rank of this process.
        world_size: number of ranks.
        seed: seed of the partitioning and of the shuffling.
        shuffle_users: users of the shuffle buffer, rounded up to whole batches. Two buffers of at most
            ``18 * shuffle_users * (max_events + 1)`` bytes are in memory while one is being shuffled.
        prefetch: batches prepared ahead of the consumer.
        prior_items: whether batches hold the items of the training events before those kept.

    Raises:
        ValueError: a size is below 1, or ``rank`` is outside ``[0, world_size)``.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_users: int,
        max_events: int,
        rank: int,
        world_size: int,
        seed: int,
        shuffle_users: int = 8192,
        prefetch: int = 2,
        prior_items: bool = False,
    ) -> None:
        check_partition(batch_users=batch_users, max_events=max_events, rank=rank, world_size=world_size)
        if shuffle_users < 1 or prefetch < 1:
            raise ValueError(f"shuffle_users and prefetch must be >= 1, got {shuffle_users} and {prefetch}")
        self._dataset = dataset
        self._groups = RowGroups.of(dataset.manifest)
        self._batch_users, self._max_events = batch_users, max_events
        self._rank, self._world_size = rank, world_size
        self._seed, self._prefetch = seed, prefetch
        self._buffer_users = -(-shuffle_users // batch_users) * batch_users
        self._prior_items = prior_items
        self._partition = self._rank_partition()

    @property
    def user_ids(self) -> Tensor:
        """``[users of this rank]`` int64 dense user ids, ascending."""
        return torch.from_numpy(np.sort(self._partition.user_ids(offsets_of(self._groups.num_users))))

    @property
    def steps_per_epoch(self) -> int:
        """Batches of every rank in every epoch."""
        largest_partition = -(-self._dataset.num_users // self._world_size)
        return -(-largest_partition // self._batch_users)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[JaggedBatch]:
        """The batches of an epoch, from ``start_step`` on.

        A batch is a function of seed, epoch and step alone, so that a run resumes from ``(epoch, step)`` exactly.
        Shuffle buffers before ``start_step`` are not read.

        Args:
            epoch: number of the epoch, from 0.
            start_step: first step to yield, in ``[0, steps_per_epoch]``.

        Raises:
            ValueError: ``start_step`` is outside the epoch.
            UserError: while iterating, if a shard cannot be read.
        """
        if epoch < 0 or not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(
                f"epoch must be >= 0 and start_step in [0, {self.steps_per_epoch}], got {epoch} and {start_step}"
            )
        return prefetched(self._batches(epoch, start_step), self._prefetch)

    def _batches(self, epoch: int, start_step: int) -> Iterator[JaggedBatch]:
        partition = self._partition.shuffled(self._random(epoch, _SLICE_ORDER, self._rank))
        reader = RowGroupReader(self._dataset)
        buffer, buffer_index = None, -1
        for step in range(start_step, self.steps_per_epoch):
            first = step * self._batch_users
            stop = min(first + self._batch_users, partition.num_users)
            if first >= stop:
                yield JaggedBatch.empty()
                continue
            if buffer is None or first // self._buffer_users != buffer_index:
                buffer_index = first // self._buffer_users
                buffer = self._fill_buffer(reader, partition, buffer_index)
                order = self._random(epoch, _USER_ORDER, self._rank, buffer_index).permutation(buffer.num_users)
            begin = buffer_index * self._buffer_users
            yield buffer.batch(order[first - begin : stop - begin])

    def _rank_partition(self) -> _RankPartition:
        order = self._random(_GROUP_ORDER).permutation(len(self._groups.num_users))
        offsets = offsets_of(self._groups.num_users[order])
        num_users = self._dataset.num_users
        first = self._rank * num_users // self._world_size
        stop = (self._rank + 1) * num_users // self._world_size
        starts, stops = np.clip(offsets[:-1], first, stop), np.clip(offsets[1:], first, stop)
        owned = starts < stops
        return _RankPartition(order[owned], (starts - offsets[:-1])[owned], (stops - offsets[:-1])[owned])

    def _fill_buffer(self, reader: RowGroupReader, partition: _RankPartition, index: int) -> _ShuffleBuffer:
        first = index * self._buffer_users
        recent, prior = [], []
        for group, users in partition.slices(first, min(first + self._buffer_users, partition.num_users)):
            sequences = reader.read(int(self._groups.shard[group]), int(self._groups.group[group]))
            trained = num_training_events(sequences.lengths)[users]
            start = np.maximum(trained - self._max_events - 1, 0)
            recent.append(sequences.cut(users, start, trained))
            if self._prior_items:
                prior.append(sequences.cut(users, np.zeros_like(start), start))
        return _ShuffleBuffer(concatenate(recent), concatenate(prior) if prior else None)

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *stream])


@dataclass(frozen=True)
class _RankPartition:
    """One rank's users, as slices of row groups.

    Attributes:
        groups: ``[P]`` row group of each slice.
        starts, stops: ``[P]`` first user of each slice inside its row group, and the end of the slice.
    """

    groups: IntArray
    starts: IntArray
    stops: IntArray

    @property
    def num_users(self) -> int:
        return int((self.stops - self.starts).sum())

    def user_ids(self, group_offsets: IntArray) -> IntArray:
        """``[num_users]`` dense ids of all users; row group ``g`` begins with user ``group_offsets[g]``."""
        begin = group_offsets[self.groups]
        return ragged_index(begin + self.starts, begin + self.stops)[1]

    def shuffled(self, random: np.random.Generator) -> _RankPartition:
        """The same slices in another order."""
        order = random.permutation(len(self.groups))
        return _RankPartition(self.groups[order], self.starts[order], self.stops[order])

    def slices(self, first: int, stop: int) -> Iterator[tuple[int, slice]]:
        """The row groups that hold the users ``first:stop`` of this partition, with their slice of each."""
        offsets = offsets_of(self.stops - self.starts)
        index = int(np.searchsorted(offsets, first, side="right")) - 1
        while index < len(self.groups) and offsets[index] < stop:
            shift = int(self.starts[index] - offsets[index])
            begin, end = max(first, int(offsets[index])), min(stop, int(offsets[index + 1]))
            yield int(self.groups[index]), slice(begin + shift, end + shift)
            index += 1


@dataclass(frozen=True)
class _ShuffleBuffer:
    """Users that are shuffled together.

    Attributes:
        recent: most recent training events of each user.
        prior: training events of each user before those; None unless requested.
    """

    recent: Sequences
    prior: Sequences | None

    @property
    def num_users(self) -> int:
        return self.recent.num_users

    def batch(self, users: IntArray) -> JaggedBatch:
        """Some of the users, in that order."""
        batch = self.recent.take(users).to_batch()
        if self.prior is None:
            return batch
        prior = self.prior.take(users)
        return replace(
            batch, prior_item_ids=torch.from_numpy(prior.item_ids), prior_offsets=torch.from_numpy(prior.offsets)
        )


def check_partition(*, batch_users: int, max_events: int, rank: int, world_size: int) -> None:
    """Raise ValueError unless the arguments describe one rank's partition of a stream."""
    if batch_users < 1 or max_events < 1:
        raise ValueError(f"batch_users and max_events must be >= 1, got {batch_users} and {max_events}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}")

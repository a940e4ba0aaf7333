"""The training stream: global batches that depend on seed and step alone, dealt to the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.dataset import Dataset, RowGroupReader, RowGroups
from unigrf_dist.data.partition import Partition, SliceReader
from unigrf_dist.data.prefetch import prefetched
from unigrf_dist.data.sequences import IntArray, Sequences, concatenate, offsets_of
from unigrf_dist.data.split import TrainTo, num_training_events

# Tells the random streams apart.
_GROUP_ORDER, _SLICE_ORDER, _USER_ORDER = 0, 1, 2


class TrainStream:
    """Training events of all users in global batches, reshuffled in every epoch; this rank's part of each.

    A random order of the row groups of all shards, the same for all epochs, is split into ``partitions``
    partitions with equally many users (± one), so that a row group may be sliced between two of them. In every
    epoch a partition reads its slices in a new random order into a shuffle buffer and shuffles the buffer's users.
    A global batch takes users from the partitions in turn: what it holds is a function of the seed, the epoch and
    the step alone. Every user comes exactly once per epoch, in the same step on any number of ranks, so that a run
    may go on from any step with other ranks.

    Ranks share the partitions: each keeps a contiguous range of them in all epochs, and with it the state it holds
    per user. Every rank yields the same number of batches, of which some may be empty.

    Args:
        dataset: data set to read.
        global_batch_users: users per step, over all ranks.
        max_events: a user's most recent ``max_events + 1`` training events are kept: history and one target.
        rank: rank of this process.
        world_size: number of ranks.
        seed: seed of the partitioning and of the shuffling.
        partitions: number of partitions, at least ``world_size``.
        shuffle_users: users of all partitions' shuffle buffers together, at least one per partition. Buffers of at
            most ``18 * shuffle_users * (max_events + 1)`` bytes, divided among the ranks, are in memory.
        prefetch: batches prepared ahead of the consumer.
        prior_items: whether batches hold the items of the training events before those kept.
        train_to: last event of a user that counts as a training event.

    Raises:
        ValueError: a size is below 1, ``rank`` is outside ``[0, world_size)``, or there are more ranks than
            partitions.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        global_batch_users: int,
        max_events: int,
        rank: int,
        world_size: int,
        seed: int,
        partitions: int = 64,
        shuffle_users: int = 8192,
        prefetch: int = 2,
        prior_items: bool = False,
        train_to: TrainTo = "training",
    ) -> None:
        check_partition(batch_users=global_batch_users, max_events=max_events, rank=rank, world_size=world_size)
        if shuffle_users < 1 or prefetch < 1:
            raise ValueError(f"shuffle_users and prefetch must be >= 1, got {shuffle_users} and {prefetch}")
        if partitions < world_size:
            raise ValueError(f"partitions must be >= world_size, got {partitions} for {world_size} ranks")
        self._dataset = dataset
        self._groups = RowGroups.of(dataset.manifest)
        self._global_users, self._num_partitions, self._max_events = global_batch_users, partitions, max_events
        self._seed, self._prefetch, self._prior_items = seed, prefetch, prior_items
        self._train_to: TrainTo = train_to
        self._buffer_rounds = -(-shuffle_users // partitions)
        # Contiguous partitions are slices of neighbouring row groups, so that few row groups are read by two
        # ranks.
        own = range(-(-rank * partitions // world_size), -(-(rank + 1) * partitions // world_size))
        order = self._random(_GROUP_ORDER).permutation(len(self._groups.num_users))
        self._partitions = {index: Partition.of(index, partitions, self._groups.num_users, order) for index in own}

    @property
    def user_ids(self) -> Tensor:
        """``[users of this rank]`` int64 dense user ids; end to end over all ranks always in the same order."""
        offsets = offsets_of(self._groups.num_users)
        parts = [partition.user_ids(offsets) for partition in self._partitions.values()]
        return torch.from_numpy(np.concatenate(parts))

    @property
    def first_user(self) -> int:
        """How many users the ranks before this one have."""
        share, larger = divmod(self._dataset.num_users, self._num_partitions)
        first = min(self._partitions)
        return first * share + min(first, larger)

    @property
    def order(self) -> str:
        """What decides the order of ``user_ids``; equal text, equal order."""
        return f"seed {self._seed}, {self._num_partitions} partitions of {self._dataset.num_users} users"

    @property
    def steps_per_epoch(self) -> int:
        """Batches of every rank in every epoch."""
        return -(-self._dataset.num_users // self._global_users)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[JaggedBatch]:
        """This rank's batches of an epoch, from ``start_step`` on.

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
        partitions = {
            index: partition.shuffled(self._random(epoch, _SLICE_ORDER, index))
            for index, partition in self._partitions.items()
        }
        reader = SliceReader(RowGroupReader(self._dataset), self._groups)
        buffer, buffer_index = None, -1
        for step in range(start_step, self.steps_per_epoch):
            first = step * self._global_users
            stop = min(first + self._global_users, self._dataset.num_users)
            parts = []
            for index in range(self._buffer_of(first), self._buffer_of(stop - 1) + 1):
                if buffer is None or index != buffer_index:
                    buffer, buffer_index = self._fill_buffer(reader, partitions, epoch, index), index
                parts += buffer.take(first, stop)
            yield _to_batch(parts)

    def _buffer_of(self, position: int) -> int:
        """Index of the shuffle buffer that holds the epoch's user ``position``.

        The users of an epoch are dealt out in rounds, one of every partition in turn: user ``position`` is user
        ``position // partitions`` of partition ``position % partitions``.
        """
        return position // self._num_partitions // self._buffer_rounds

    def _fill_buffer(
        self, reader: SliceReader, partitions: dict[int, Partition], epoch: int, index: int
    ) -> _ShuffleBuffer:
        """Read and shuffle the users of rounds ``index * buffer_rounds`` and on, of this rank's partitions."""
        first = index * self._buffer_rounds
        recent, prior, positions, rows, base = [], [], [], [], 0
        for number, partition in partitions.items():
            users = range(first, min(first + self._buffer_rounds, partition.num_users))
            for sequences, selected in reader.read(number, partition, users):
                trained = num_training_events(sequences.lengths, self._train_to)[selected]
                start = np.maximum(trained - self._max_events - 1, 0)
                recent.append(sequences.cut(selected, start, trained))
                if self._prior_items:
                    prior.append(sequences.cut(selected, np.zeros_like(start), start))
            order = self._random(epoch, _USER_ORDER, number, index).permutation(len(users))
            positions.append(np.arange(users.start, users.start + len(users)) * self._num_partitions + number)
            rows.append(base + order)
            base += len(users)
        return _ShuffleBuffer.of(recent, prior, positions, rows)

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *stream])


@dataclass(frozen=True)
class _ShuffleBuffer:
    """Users that are shuffled together.

    Attributes:
        recent: most recent training events of each user; None if there are no users.
        prior: training events of each user before those; None unless requested.
        positions: ``[U]`` int64, ascending: which users of the epoch these are.
        rows: ``[U]`` int64, index of each among ``recent``.
    """

    recent: Sequences | None
    prior: Sequences | None
    positions: IntArray
    rows: IntArray

    @staticmethod
    def of(
        recent: list[Sequences], prior: list[Sequences], positions: list[IntArray], rows: list[IntArray]
    ) -> _ShuffleBuffer:
        joined = np.concatenate(positions)
        order = np.argsort(joined)
        return _ShuffleBuffer(
            concatenate(recent) if recent else None,
            concatenate(prior) if prior else None,
            joined[order],
            np.concatenate(rows)[order],
        )

    def take(self, first: int, stop: int) -> list[tuple[Sequences, Sequences | None]]:
        """Recent and prior events of the epoch's users ``first:stop`` that are here; at most one element."""
        begin, end = np.searchsorted(self.positions, (first, stop))
        if self.recent is None or begin == end:
            return []
        rows = self.rows[begin:end]
        return [(self.recent.take(rows), None if self.prior is None else self.prior.take(rows))]


def _to_batch(parts: list[tuple[Sequences, Sequences | None]]) -> JaggedBatch:
    if not parts:
        return JaggedBatch.empty()
    batch = concatenate([recent for recent, _ in parts]).to_batch()
    priors = [prior for _, prior in parts if prior is not None]
    if not priors:
        return batch
    prior = concatenate(priors)
    return replace(
        batch, prior_item_ids=torch.from_numpy(prior.item_ids), prior_offsets=torch.from_numpy(prior.offsets)
    )


def check_partition(*, batch_users: int, max_events: int, rank: int, world_size: int) -> None:
    """Raise ValueError unless the arguments describe one rank's partition of a stream."""
    if batch_users < 1 or max_events < 1:
        raise ValueError(f"batch_users and max_events must be >= 1, got {batch_users} and {max_events}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}")

"""The training stream: global batches that depend on seed and step alone, dealt to the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.dataset import Dataset, RowGroupReader
from unigrf_dist.data.epoch_rows import EpochRows
from unigrf_dist.data.partition import Partition, PartitionReader, runs_of_shards, shuffled_runs
from unigrf_dist.data.prefetch import prefetched
from unigrf_dist.data.rows import RowPlan, Rows
from unigrf_dist.data.sequences import IntArray
from unigrf_dist.data.split import TrainTo

# Tells the random streams apart.
_GROUP_ORDER, _SLICE_ORDER, _ROW_ORDER = 0, 1, 2


class TrainStream:
    """Training events of all users in global batches, reshuffled in every epoch; this rank's part of each.

    A user's events are one row of the epoch, or several with ``chunk_context`` (``RowPlan``). Row groups in runs
    of one shard, in a random order of the runs that is the same for all epochs, are cut into ``partitions``
    partitions with equally many rows (± one), so that a row group may be sliced between two of them. In every
    epoch a partition reads its slices in a new random order, run by run, into a shuffle buffer and shuffles the
    buffer's rows. A global batch takes rows from the partitions in turn: what it holds is a function of the seed,
    the epoch and the step alone. Every row comes exactly once per epoch, in the same step on any number of ranks,
    so that a run may go on from any step with other ranks.

    Ranks share the partitions: each keeps a contiguous range of them in all epochs, and with it the state it holds
    per user, which goes with the row of the user's latest event. Every rank yields the same number of batches, of
    which some may be empty.

    Args:
        dataset: data set to read.
        global_batch_users: rows per step, over all ranks.
        max_events: a row holds at most ``max_events + 1`` training events, history and one target: a user's most
            recent ones, unless there is ``chunk_context``.
        rank: rank of this process.
        world_size: number of ranks.
        seed: seed of the partitioning and of the shuffling.
        partitions: number of partitions, at least ``world_size``.
        shuffle_users: rows of all partitions' shuffle buffers together, at least one per partition. Buffers of at
            most ``18 * shuffle_users * (max_events + 1)`` bytes, divided among the ranks, are in memory.
        prefetch: batches prepared ahead of the consumer.
        readers: threads that read row groups at the same time; what is read does not depend on them.
        prior_items: whether batches hold the items of the training events before those of the row.
        chunk_context: train on all events, in chunks that begin with so many events of context; None trains on the
            most recent ones alone.
        train_to: last event of a user that counts as a training event.

    Raises:
        ValueError: a size is below 1, ``rank`` is outside ``[0, world_size)``, there are more ranks than
            partitions, or ``chunk_context`` is outside ``[1, max_events]``.
        UserError: with ``chunk_context``, which reads all lengths first, if a shard cannot be read.
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
        readers: int = 1,
        prior_items: bool = False,
        chunk_context: int | None = None,
        train_to: TrainTo = "training",
    ) -> None:
        check_partition(batch_users=global_batch_users, max_events=max_events, rank=rank, world_size=world_size)
        if min(shuffle_users, prefetch, readers) < 1:
            given = f"{shuffle_users}, {prefetch} and {readers}"
            raise ValueError(f"shuffle_users, prefetch and readers must be >= 1, got {given}")
        if partitions < world_size:
            raise ValueError(f"partitions must be >= world_size, got {partitions} for {world_size} ranks")
        self._dataset, self._plan = dataset, RowPlan(max_events, chunk_context)
        self._rows = EpochRows.of(dataset, self._plan, train_to)
        self._global_rows, self._num_partitions, self._num_rows = global_batch_users, partitions, self._rows.total
        self._seed, self._prefetch, self._readers, self._prior_items = seed, prefetch, readers, prior_items
        self._buffer_rounds = -(-shuffle_users // partitions)
        # Contiguous partitions are slices of neighbouring row groups, so that few row groups are read by two
        # ranks.
        own = range(-(-rank * partitions // world_size), -(-(rank + 1) * partitions // world_size))
        self._runs = runs_of_shards(self._rows.groups)
        self._order = shuffled_runs(self._runs, self._random(_GROUP_ORDER))
        self._partitions = {n: Partition.of(n, partitions, self._rows.num_rows, self._order) for n in own}

    @property
    def user_ids(self) -> Tensor:
        """``[users of this rank]`` int64 dense user ids; end to end over all ranks always in the same order."""
        parts = [self._rows.user_ids(partition) for partition in self._partitions.values()]
        return torch.from_numpy(np.concatenate(parts))

    @property
    def first_user(self) -> int:
        """How many users the ranks before this one have."""
        share, larger = divmod(self._num_rows, self._num_partitions)
        first = min(self._partitions)
        return self._rows.num_users_before(first * share + min(first, larger), self._order)

    @property
    def order(self) -> str:
        """What decides the order of ``user_ids``; equal text, equal order."""
        users = f"seed {self._seed}, {self._num_partitions} partitions of {self._dataset.num_users_read} users"
        rows = users if self._plan.one_per_user else f"{users} in {self._num_rows} chunks"
        known = self._dataset.known_days
        return rows if known is None else f"{rows} of what came after day {known}"

    @property
    def steps_per_epoch(self) -> int:
        """Batches of every rank in every epoch."""
        return -(-self._num_rows // self._global_rows)

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
            index: self._partition_reader(partition.shuffled(self._random(epoch, _SLICE_ORDER, index), self._runs))
            for index, partition in self._partitions.items()
        }
        buffer, buffer_index = None, -1
        with ThreadPoolExecutor(self._readers, "reader") as readers:
            for step in range(start_step, self.steps_per_epoch):
                first = step * self._global_rows
                stop = min(first + self._global_rows, self._num_rows)
                parts = []
                for index in range(self._buffer_of(first), self._buffer_of(stop - 1) + 1):
                    if buffer is None or index != buffer_index:
                        buffer, buffer_index = self._fill_buffer(readers, partitions, epoch, index), index
                    parts += buffer.take(first, stop)
                yield Rows.concatenate(parts).to_batch() if parts else JaggedBatch.empty()

    def _partition_reader(self, partition: Partition) -> PartitionReader:
        # Partitions are read at the same time, in turn and in threads: each has a shard of its own open.
        return PartitionReader(RowGroupReader(self._dataset, most_open=1), self._rows.groups, partition)

    def _buffer_of(self, position: int) -> int:
        """Index of the shuffle buffer that holds the epoch's row ``position``.

        The rows of an epoch are dealt out in rounds, one of every partition in turn: row ``position`` is row
        ``position // partitions`` of partition ``position % partitions``.
        """
        return position // self._num_partitions // self._buffer_rounds

    def _fill_buffer(
        self, readers: Executor, partitions: dict[int, PartitionReader], epoch: int, index: int
    ) -> _ShuffleBuffer:
        """Read and shuffle the rows of rounds ``index * buffer_rounds`` and on, of this rank's partitions."""
        first = index * self._buffer_rounds
        wanted = {
            number: range(first, min(first + self._buffer_rounds, reader.partition.num_rows))
            for number, reader in partitions.items()
        }
        read = readers.map(self._read, partitions.values(), wanted.values())
        parts, positions, places, base = [], [], [], 0
        for (number, rows), of_partition in zip(wanted.items(), read, strict=True):
            parts += of_partition
            order = self._random(epoch, _ROW_ORDER, number, index).permutation(len(rows))
            positions.append(np.arange(rows.start, rows.start + len(rows)) * self._num_partitions + number)
            places.append(base + order)
            base += len(rows)
        return _ShuffleBuffer.of(parts, positions, places)

    def _read(self, reader: PartitionReader, rows: range) -> list[Rows]:
        found = []
        for sequences, selected in reader.read(rows):
            trained = self._dataset.split.num_training_events(sequences, self._rows.train_to)
            found.append(Rows.cut(sequences, trained, selected, self._plan, prior=self._prior_items))
        return found

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *stream])


@dataclass(frozen=True)
class _ShuffleBuffer:
    """Rows that are shuffled together.

    Attributes:
        rows: the rows; None if there are none.
        positions: ``[N]`` int64, ascending: which rows of the epoch these are.
        places: ``[N]`` int64, index of each among ``rows``.
    """

    rows: Rows | None
    positions: IntArray
    places: IntArray

    @staticmethod
    def of(parts: list[Rows], positions: list[IntArray], places: list[IntArray]) -> _ShuffleBuffer:
        joined = np.concatenate(positions)
        order = np.argsort(joined)
        rows = Rows.concatenate(parts) if parts else None
        return _ShuffleBuffer(rows, joined[order], np.concatenate(places)[order])

    def take(self, first: int, stop: int) -> list[Rows]:
        """The epoch's rows ``first:stop`` that are here; at most one element."""
        begin, end = np.searchsorted(self.positions, (first, stop))
        return [] if self.rows is None or begin == end else [self.rows.take(self.places[begin:end])]


def check_partition(*, batch_users: int, max_events: int, rank: int, world_size: int) -> None:
    """Raise ValueError unless the arguments describe one rank's partition of a stream."""
    if batch_users < 1 or max_events < 1:
        raise ValueError(f"batch_users and max_events must be >= 1, got {batch_users} and {max_events}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}")

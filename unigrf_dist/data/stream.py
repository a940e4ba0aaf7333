"""The training stream: every rank's share of an epoch as jagged batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.dataset import Dataset, RowGroupReader, RowGroups
from unigrf_dist.data.prefetch import prefetched
from unigrf_dist.data.sequences import IntArray, Sequences, concatenate, offsets_of
from unigrf_dist.data.split import num_training_events

# Tells the random streams of an epoch apart.
_GROUP_ORDER, _USER_ORDER = 0, 1


class TrainStream:
    """Training events of all users, divided among ranks, shuffled anew in every epoch.

    The row groups of all shards are put into the epoch's random order, which is cut, counted in users, into
    ``world_size`` stretches of equal length (± one user). A rank reads its stretch window by window and
    shuffles the users of a window. No user comes twice in an epoch and none is left out; every rank makes the
    same number of batches, the last of which may be short or empty.

    Args:
        dataset: to read.
        batch_users: users per rank and step.
        max_events: a user's most recent ``max_events + 1`` training events are kept: history and one target.
        rank: of this process.
        world_size: number of ranks.
        seed: of the shuffling.
        shuffle_users: users of a window, rounded up to whole batches. Two windows of at most
            ``18 * shuffle_users * (max_events + 1)`` bytes are in memory while one is being shuffled.
        prefetch: batches made ahead.
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
    ) -> None:
        check_share(batch_users=batch_users, max_events=max_events, rank=rank, world_size=world_size)
        if shuffle_users < 1 or prefetch < 1:
            raise ValueError(f"shuffle_users and prefetch must be >= 1, got {shuffle_users} and {prefetch}")
        self._dataset = dataset
        self._groups = RowGroups.of(dataset.manifest)
        self._batch_users, self._max_events = batch_users, max_events
        self._rank, self._world_size = rank, world_size
        self._seed, self._prefetch = seed, prefetch
        self._window_users = -(-shuffle_users // batch_users) * batch_users

    @property
    def steps_per_epoch(self) -> int:
        """Batches of every rank in every epoch."""
        longest_stretch = -(-self._dataset.num_users // self._world_size)
        return -(-longest_stretch // self._batch_users)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[JaggedBatch]:
        """The batches of an epoch, from ``start_step`` on.

        What it yields is a function of the seed, the epoch and the step only, so that a run goes on from
        ``(epoch, step)`` exactly. Windows before ``start_step`` are not read.

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
        stretch = self._stretch(epoch)
        reader = RowGroupReader(self._dataset)
        window, window_number = None, -1
        for step in range(start_step, self.steps_per_epoch):
            first = step * self._batch_users
            stop = min(first + self._batch_users, stretch.num_users)
            if first >= stop:
                yield JaggedBatch.empty()
                continue
            if window is None or first // self._window_users != window_number:
                window_number = first // self._window_users
                window = self._read_window(reader, stretch, window_number)
                order = self._random(epoch, _USER_ORDER, self._rank, window_number).permutation(window.num_users)
            begin = window_number * self._window_users
            yield window.take(order[first - begin : stop - begin]).to_batch()

    def _stretch(self, epoch: int) -> _Stretch:
        order = self._random(epoch, _GROUP_ORDER).permutation(len(self._groups.num_users))
        num_users = self._dataset.num_users
        first = self._rank * num_users // self._world_size
        stop = (self._rank + 1) * num_users // self._world_size
        return _Stretch(order, offsets_of(self._groups.num_users[order]), first, stop)

    def _read_window(self, reader: RowGroupReader, stretch: _Stretch, number: int) -> Sequences:
        first = stretch.first + number * self._window_users
        stop = min(first + self._window_users, stretch.stop)
        parts = []
        for group, users in stretch.pieces(first, stop):
            sequences = reader.read(int(self._groups.shard[group]), int(self._groups.group[group]))
            trained = num_training_events(sequences.lengths)[users]
            parts.append(sequences.cut(users, np.maximum(trained - self._max_events - 1, 0), trained))
        return concatenate(parts)

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *stream])


@dataclass(frozen=True)
class _Stretch:
    """The users ``first:stop`` of an epoch's order of row groups.

    Attributes:
        order: ``[G]`` row groups.
        offsets: ``[G + 1]`` where each begins, counted in users.
    """

    order: IntArray
    offsets: IntArray
    first: int
    stop: int

    @property
    def num_users(self) -> int:
        return self.stop - self.first

    def pieces(self, first: int, stop: int) -> Iterator[tuple[int, slice]]:
        """The row groups that hold the users ``first:stop``, each with the slice of its users among them."""
        place = int(np.searchsorted(self.offsets, first, side="right")) - 1
        while place < len(self.order) and self.offsets[place] < stop:
            begin, end = int(self.offsets[place]), int(self.offsets[place + 1])
            yield int(self.order[place]), slice(max(first, begin) - begin, min(stop, end) - begin)
            place += 1


def check_share(*, batch_users: int, max_events: int, rank: int, world_size: int) -> None:
    """Raise ValueError unless the arguments describe one rank's share of a stream."""
    if batch_users < 1 or max_events < 1:
        raise ValueError(f"batch_users and max_events must be >= 1, got {batch_users} and {max_events}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}")

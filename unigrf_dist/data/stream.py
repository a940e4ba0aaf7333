"""The training stream: every rank's share of an epoch as jagged batches."""

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

# Tells the random streams apart.
_GROUP_ORDER, _PIECE_ORDER, _USER_ORDER = 0, 1, 2


class TrainStream:
    """Training events of all users, divided among ranks, shuffled anew in every epoch.

    The row groups of all shards are put into a random order, which is cut, counted in users, into ``world_size``
    stretches of equal length (± one user). A rank keeps its stretch, and with it what it remembers of its users.
    In every epoch it reads the row groups of its stretch in a new random order, window by window, and shuffles
    the users of a window. No user comes twice in an epoch and none is left out; every rank makes the same number
    of batches, the last of which may be short or empty.

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
        prior_items: whether batches hold the items of the training events before those kept.
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
        check_share(batch_users=batch_users, max_events=max_events, rank=rank, world_size=world_size)
        if shuffle_users < 1 or prefetch < 1:
            raise ValueError(f"shuffle_users and prefetch must be >= 1, got {shuffle_users} and {prefetch}")
        self._dataset = dataset
        self._groups = RowGroups.of(dataset.manifest)
        self._batch_users, self._max_events = batch_users, max_events
        self._rank, self._world_size = rank, world_size
        self._seed, self._prefetch = seed, prefetch
        self._window_users = -(-shuffle_users // batch_users) * batch_users
        self._prior_items = prior_items
        self._share = self._rank_share()

    @property
    def user_ids(self) -> Tensor:
        """Ascending int64, the users of this rank."""
        return torch.from_numpy(np.sort(self._share.user_ids(offsets_of(self._groups.num_users))))

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
        share = self._share.shuffled(self._random(epoch, _PIECE_ORDER, self._rank))
        reader = RowGroupReader(self._dataset)
        window, window_number = None, -1
        for step in range(start_step, self.steps_per_epoch):
            first = step * self._batch_users
            stop = min(first + self._batch_users, share.num_users)
            if first >= stop:
                yield JaggedBatch.empty()
                continue
            if window is None or first // self._window_users != window_number:
                window_number = first // self._window_users
                window = self._read_window(reader, share, window_number)
                order = self._random(epoch, _USER_ORDER, self._rank, window_number).permutation(window.num_users)
            begin = window_number * self._window_users
            yield window.batch(order[first - begin : stop - begin])

    def _rank_share(self) -> _Share:
        order = self._random(_GROUP_ORDER).permutation(len(self._groups.num_users))
        offsets = offsets_of(self._groups.num_users[order])
        num_users = self._dataset.num_users
        first = self._rank * num_users // self._world_size
        stop = (self._rank + 1) * num_users // self._world_size
        starts, stops = np.clip(offsets[:-1], first, stop), np.clip(offsets[1:], first, stop)
        held = starts < stops
        return _Share(order[held], (starts - offsets[:-1])[held], (stops - offsets[:-1])[held])

    def _read_window(self, reader: RowGroupReader, share: _Share, number: int) -> _Window:
        first = number * self._window_users
        kept, older = [], []
        for group, users in share.pieces(first, min(first + self._window_users, share.num_users)):
            sequences = reader.read(int(self._groups.shard[group]), int(self._groups.group[group]))
            trained = num_training_events(sequences.lengths)[users]
            start = np.maximum(trained - self._max_events - 1, 0)
            kept.append(sequences.cut(users, start, trained))
            if self._prior_items:
                older.append(sequences.cut(users, np.zeros_like(start), start))
        return _Window(concatenate(kept), concatenate(older) if older else None)

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *stream])


@dataclass(frozen=True)
class _Share:
    """One rank's users: pieces of row groups.

    Attributes:
        groups: ``[P]`` row group of each piece.
        starts, stops: ``[P]`` its users inside that row group.
    """

    groups: IntArray
    starts: IntArray
    stops: IntArray

    @property
    def num_users(self) -> int:
        return int((self.stops - self.starts).sum())

    def user_ids(self, group_offsets: IntArray) -> IntArray:
        """Dense ids of all users; row group ``g`` begins with user ``group_offsets[g]``."""
        begin = group_offsets[self.groups]
        return ragged_index(begin + self.starts, begin + self.stops)[1]

    def shuffled(self, random: np.random.Generator) -> _Share:
        """The same pieces in another order."""
        order = random.permutation(len(self.groups))
        return _Share(self.groups[order], self.starts[order], self.stops[order])

    def pieces(self, first: int, stop: int) -> Iterator[tuple[int, slice]]:
        """The row groups that hold the users ``first:stop`` of this share, with the slice of them in each."""
        offsets = offsets_of(self.stops - self.starts)
        place = int(np.searchsorted(offsets, first, side="right")) - 1
        while place < len(self.groups) and offsets[place] < stop:
            shift = int(self.starts[place] - offsets[place])
            begin, end = max(first, int(offsets[place])), min(stop, int(offsets[place + 1]))
            yield int(self.groups[place]), slice(begin + shift, end + shift)
            place += 1


@dataclass(frozen=True)
class _Window:
    """Users that are shuffled together.

    Attributes:
        kept: their most recent training events.
        older: the training events before those, if asked for.
    """

    kept: Sequences
    older: Sequences | None

    @property
    def num_users(self) -> int:
        return self.kept.num_users

    def batch(self, users: IntArray) -> JaggedBatch:
        """Some of the users, in that order."""
        batch = self.kept.take(users).to_batch()
        if self.older is None:
            return batch
        older = self.older.take(users)
        return replace(
            batch, prior_item_ids=torch.from_numpy(older.item_ids), prior_offsets=torch.from_numpy(older.offsets)
        )


def check_share(*, batch_users: int, max_events: int, rank: int, world_size: int) -> None:
    """Raise ValueError unless the arguments describe one rank's share of a stream."""
    if batch_users < 1 or max_events < 1:
        raise ValueError(f"batch_users and max_events must be >= 1, got {batch_users} and {max_events}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}")

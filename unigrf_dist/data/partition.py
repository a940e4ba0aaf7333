"""Partitions of a data set's users, as slices of row groups, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unigrf_dist.data.dataset import RowGroupReader, RowGroups
from unigrf_dist.data.sequences import IntArray, Sequences, offsets_of, ragged_index


@dataclass(frozen=True)
class Partition:
    """Some of the users: slices of row groups.

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

    @staticmethod
    def of(index: int, partitions: int, group_users: IntArray, order: IntArray) -> Partition:
        """Partition ``index`` of ``partitions`` with equally many users (± one, the first ones are the larger).

        Args:
            index: number of the partition, from 0.
            partitions: number of partitions.
            group_users: ``[G]`` users of each row group.
            order: ``[G]`` the order in which row groups are laid end to end before they are split.
        """
        offsets = offsets_of(group_users[order])
        share, larger = divmod(int(offsets[-1]), partitions)
        first = index * share + min(index, larger)
        stop = first + share + (index < larger)
        starts, stops = np.clip(offsets[:-1], first, stop), np.clip(offsets[1:], first, stop)
        owned = starts < stops
        return Partition(order[owned], (starts - offsets[:-1])[owned], (stops - offsets[:-1])[owned])

    def user_ids(self, group_offsets: IntArray) -> IntArray:
        """``[num_users]`` dense ids of all users; row group ``g`` begins with user ``group_offsets[g]``."""
        begin = group_offsets[self.groups]
        return ragged_index(begin + self.starts, begin + self.stops)[1]

    def shuffled(self, random: np.random.Generator) -> Partition:
        """The same slices in another order."""
        order = random.permutation(len(self.groups))
        return Partition(self.groups[order], self.starts[order], self.stops[order])

    def slices(self, users: range) -> Iterator[tuple[int, slice]]:
        """The row groups that hold ``users`` of this partition, with their slice of each."""
        offsets = offsets_of(self.stops - self.starts)
        index = int(np.searchsorted(offsets, users.start, side="right")) - 1
        while users and index < len(self.groups) and offsets[index] < users.stop:
            shift = int(self.starts[index] - offsets[index])
            begin, end = max(users.start, int(offsets[index])), min(users.stop, int(offsets[index + 1]))
            yield int(self.groups[index]), slice(begin + shift, end + shift)
            index += 1


class SliceReader:
    """Reads slices of row groups, each row group once while a partition goes through it.

    A shuffle buffer ends anywhere in a row group, so the last one that a partition read is kept for its next
    buffer.
    """

    def __init__(self, reader: RowGroupReader, groups: RowGroups) -> None:
        self._reader, self._groups = reader, groups
        self._last: dict[int, tuple[int, Sequences]] = {}

    def read(self, number: int, partition: Partition, users: range) -> Iterator[tuple[Sequences, slice]]:
        """Row groups and the slices of them that are ``users`` of partition ``number``."""
        for group, selected in partition.slices(users):
            last_group, sequences = self._last.get(number, (-1, None))
            if sequences is None or last_group != group:
                sequences = self._reader.read(int(self._groups.shard[group]), int(self._groups.group[group]))
                self._last[number] = (group, sequences)
            yield sequences, selected

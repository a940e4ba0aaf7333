"""Partitions of an epoch's rows, as slices of row groups, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unigrf_dist.data.dataset import RowGroupReader, RowGroups
from unigrf_dist.data.sequences import IntArray, Sequences, offsets_of


@dataclass(frozen=True)
class Partition:
    """Some of the rows of an epoch: slices of row groups.

    Attributes:
        groups: ``[P]`` row group of each slice.
        starts, stops: ``[P]`` first row of each slice inside its row group, and the end of the slice.
    """

    groups: IntArray
    starts: IntArray
    stops: IntArray

    @property
    def num_rows(self) -> int:
        return int((self.stops - self.starts).sum())

    @staticmethod
    def of(index: int, partitions: int, group_rows: IntArray, order: IntArray) -> Partition:
        """Partition ``index`` of ``partitions`` with equally many rows (± one, the first ones are the larger).

        Args:
            index: number of the partition, from 0.
            partitions: number of partitions.
            group_rows: ``[G]`` rows of each row group.
            order: ``[G]`` the order in which row groups are laid end to end before they are split.
        """
        offsets = offsets_of(group_rows[order])
        share, larger = divmod(int(offsets[-1]), partitions)
        first = index * share + min(index, larger)
        stop = first + share + (index < larger)
        starts, stops = np.clip(offsets[:-1], first, stop), np.clip(offsets[1:], first, stop)
        owned = starts < stops
        return Partition(order[owned], (starts - offsets[:-1])[owned], (stops - offsets[:-1])[owned])

    def shuffled(self, random: np.random.Generator) -> Partition:
        """The same slices in another order."""
        order = random.permutation(len(self.groups))
        return Partition(self.groups[order], self.starts[order], self.stops[order])

    def slices(self, rows: range) -> Iterator[tuple[int, slice]]:
        """The row groups that hold ``rows`` of this partition, with their slice of each."""
        offsets = offsets_of(self.stops - self.starts)
        index = int(np.searchsorted(offsets, rows.start, side="right")) - 1
        while rows and index < len(self.groups) and offsets[index] < rows.stop:
            shift = int(self.starts[index] - offsets[index])
            begin, end = max(rows.start, int(offsets[index])), min(rows.stop, int(offsets[index + 1]))
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

    def read(self, number: int, partition: Partition, rows: range) -> Iterator[tuple[Sequences, slice]]:
        """Row groups and the slices of them that are ``rows`` of partition ``number``."""
        for group, selected in partition.slices(rows):
            last_group, sequences = self._last.get(number, (-1, None))
            if sequences is None or last_group != group:
                sequences = self._reader.read(int(self._groups.shard[group]), int(self._groups.group[group]))
                self._last[number] = (group, sequences)
            yield sequences, selected

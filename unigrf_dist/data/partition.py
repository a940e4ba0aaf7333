"""Partitions of an epoch's rows, as slices of row groups, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unigrf_dist.data.dataset import RowGroupReader, RowGroups
from unigrf_dist.data.sequences import IntArray, Sequences, offsets_of

RUN = 16
"""Row groups of a shard that stay together when row groups are shuffled."""


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

    def shuffled(self, random: np.random.Generator, runs: IntArray) -> Partition:
        """The same slices in another order, in which those of one run still follow each other.

        Args:
            random: decides the order of the runs, and of the slices in each.
            runs: ``[G]`` the run of each row group, see ``runs_of_shards``.
        """
        starts = np.diff(runs[self.groups], prepend=-1) != 0
        place_of_run = random.permutation(int(starts.sum()))[np.cumsum(starts) - 1]
        order = np.lexsort((random.permutation(len(self.groups)), place_of_run))
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


def runs_of_shards(groups: RowGroups) -> IntArray:
    """``[G]`` int64 run of each row group, ascending: neighbours in a shard, which is opened once for them."""
    return np.cumsum(groups.group % RUN == 0) - 1


def shuffled_runs(runs: IntArray, random: np.random.Generator) -> IntArray:
    """``[G]`` the row groups in an order of shuffled runs; ``runs`` ``[G]`` as ``runs_of_shards`` gives them."""
    if not len(runs):
        return runs
    return np.argsort(random.permutation(int(runs[-1]) + 1)[runs], kind="stable")


class PartitionReader:
    """Reads one partition from its beginning to its end, each row group once. Not thread-safe.

    A shuffle buffer ends anywhere in a row group, so the last one that was read is kept for the next buffer.

    Args:
        reader: of this partition alone, so that one open shard is enough.
        groups: row groups of the data set.
        partition: what is read, in this order.
    """

    def __init__(self, reader: RowGroupReader, groups: RowGroups, partition: Partition) -> None:
        self.partition, self._reader, self._groups = partition, reader, groups
        self._last: tuple[int, Sequences] | None = None

    def read(self, rows: range) -> Iterator[tuple[Sequences, slice]]:
        """Row groups, and the slices of them that are ``rows`` of the partition."""
        for group, selected in self.partition.slices(rows):
            if self._last is None or self._last[0] != group:
                read = self._reader.read(int(self._groups.shard[group]), int(self._groups.group[group]))
                self._last = (group, read)
            yield self._last[1], selected

"""How many rows each row group gives to an epoch, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unigrf_dist.data.dataset import Dataset, RowGroupReader, RowGroups
from unigrf_dist.data.partition import Partition
from unigrf_dist.data.rows import RowPlan
from unigrf_dist.data.sequences import IntArray, offsets_of, ragged_index
from unigrf_dist.data.split import TrainTo


@dataclass(frozen=True)
class EpochRows:
    """The rows of an epoch, row group by row group.

    Attributes:
        dataset: data set that is read.
        plan: how events become rows.
        groups: its ``G`` row groups.
        num_rows: ``[G]`` int64, rows of each.
        train_to: last event of a user that counts as a training event.
    """

    dataset: Dataset
    plan: RowPlan
    groups: RowGroups
    num_rows: IntArray
    train_to: TrainTo = "training"

    @staticmethod
    def of(dataset: Dataset, plan: RowPlan, train_to: TrainTo = "training") -> EpochRows:
        """The rows of ``dataset``; where a user may have several, all shards are read once for the lengths.

        Raises:
            UserError: a shard cannot be read, or does not match the manifest.
        """
        groups = dataset.row_groups
        if plan.one_per_user:
            return EpochRows(dataset, plan, groups, groups.num_users, train_to)
        reader = RowGroupReader(dataset)
        pairs = zip(groups.shard.tolist(), groups.group.tolist(), strict=True)
        counts = [_rows_of_users(dataset, reader, shard, group, plan, train_to).sum() for shard, group in pairs]
        return EpochRows(dataset, plan, groups, np.array(counts, dtype=np.int64), train_to)

    @property
    def total(self) -> int:
        """Rows of an epoch."""
        return int(self.num_rows.sum())

    def user_ids(self, partition: Partition) -> IntArray:
        """``[n]`` int64 dense ids of the users whose latest row is in ``partition``."""
        begin = offsets_of(self.groups.num_users)[:-1][partition.groups]
        starts = self._users_before(partition.groups, partition.starts)
        stops = self._users_before(partition.groups, partition.stops)
        places, only = ragged_index(begin + starts, begin + stops)[1], self.dataset.only_users
        return places if only is None else only[places]

    def num_users_before(self, row: int, order: IntArray) -> int:
        """How many users have their latest row before row ``row`` of the row groups laid end to end.

        Args:
            row: index of a row.
            order: ``[G]`` order of the row groups.
        """
        offsets = offsets_of(self.num_rows[order])
        place = int(np.searchsorted(offsets, row, side="right")) - 1
        users = int(self.groups.num_users[order[:place]].sum())
        if place == len(order):
            return users
        return users + int(self._users_before(order[place : place + 1], np.array([row - offsets[place]]))[0])

    def _users_before(self, groups: IntArray, rows: IntArray) -> IntArray:
        """``[n]`` int64, users of row group ``groups[n]`` whose latest row is before its row ``rows[n]``."""
        if self.plan.one_per_user:
            return rows
        users = np.where(rows == self.num_rows[groups], self.groups.num_users[groups], 0)
        reader = RowGroupReader(self.dataset)
        # Only a partition's first and last slice end inside a row group.
        for place in np.flatnonzero((rows > 0) & (rows < self.num_rows[groups])):
            shard, group = (int(of[groups[place]]) for of in (self.groups.shard, self.groups.group))
            ends = np.cumsum(_rows_of_users(self.dataset, reader, shard, group, self.plan, self.train_to))
            users[place] = np.searchsorted(ends, rows[place], side="right")
        return users


def _rows_of_users(
    dataset: Dataset, reader: RowGroupReader, shard: int, group: int, plan: RowPlan, to: TrainTo
) -> IntArray:
    """``[U]`` int64 rows of each user of a row group."""
    return plan.num_rows(dataset.split.num_training_events(reader.read(shard, group), to))

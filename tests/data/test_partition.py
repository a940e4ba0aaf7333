"""Row groups are shuffled in runs of one shard: neighbours are read together, and shards are opened rarely."""

from __future__ import annotations

import numpy as np

from unigrf_dist.data.dataset import RowGroups
from unigrf_dist.data.partition import RUN, Partition, runs_of_shards, shuffled_runs


def row_groups(shards: int, per_shard: int, users: int) -> RowGroups:
    shard, group = np.divmod(np.arange(shards * per_shard), per_shard)
    return RowGroups(shard, group, np.full(len(shard), users))


def partition_of(groups: RowGroups, index: int, partitions: int, epoch: int = 0) -> Partition:
    runs = runs_of_shards(groups)
    order = shuffled_runs(runs, np.random.default_rng(1))
    assert np.array_equal(np.sort(order), np.arange(len(order)))
    whole = Partition.of(index, partitions, groups.num_users, order)
    return whole.shuffled(np.random.default_rng([2, epoch]), runs)


def test_a_run_is_of_one_shard() -> None:
    groups = row_groups(shards=3, per_shard=RUN + 2, users=5)
    assert runs_of_shards(groups).tolist() == [0] * RUN + [1, 1] + [2] * RUN + [3, 3] + [4] * RUN + [5, 5]


def test_a_billion_users_open_a_shard_for_a_tenth_of_the_row_groups_at_most() -> None:
    """One open shard a partition, 64 partitions, shards of 65,536 users in row groups of 256."""
    groups = row_groups(shards=10**9 // 65_536, per_shard=256, users=256)
    for index in (0, 37):
        read = partition_of(groups, index, 64).groups
        opens = 1 + np.count_nonzero(np.diff(groups.shard[read]))
        assert len(read) > 60_000
        assert opens / len(read) <= 0.1


def test_runs_and_the_row_groups_in_them_are_shuffled_anew() -> None:
    groups = row_groups(shards=4, per_shard=2 * RUN, users=3)
    orders = [partition_of(groups, 0, 1, epoch).groups for epoch in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(8 * RUN))
        by_run = order.reshape(8, RUN) // RUN
        assert (by_run == by_run[:, :1]).all()
    assert len({tuple(order[::RUN] // RUN) for order in orders}) == 3
    assert (
        len({tuple(np.concatenate([run - run.min() for run in order.reshape(8, RUN)])) for order in orders}) == 3
    )
    assert any((np.diff(run) < 0).any() for run in orders[0].reshape(8, RUN))


def test_a_partition_that_begins_inside_a_run_keeps_its_slices() -> None:
    groups = row_groups(shards=2, per_shard=5, users=4)
    rows = []
    for index in range(3):
        part = partition_of(groups, index, 3)
        slices = zip(part.groups, part.starts, part.stops, strict=True)
        rows += [4 * group + row for group, start, stop in slices for row in range(start, stop)]
    assert sorted(rows) == list(range(40))

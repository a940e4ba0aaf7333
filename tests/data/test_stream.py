"""The training stream on real files: global batches on any number of ranks, choice of events, exact resumption."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.small_sets import distinct_users, training_events_kept, users_of, write_users
from unigrf_dist.data import Dataset, JaggedBatch, TrainStream
from unigrf_dist.data.dataset import RowGroupReader
from unigrf_dist.errors import UserError

LENGTHS = [1, 2, 3, 4, 9, 30, 5, 5, 1, 3, 12, 7, 2, 8, 6, 3, 3, 40, 1, 4, 11, 5, 6] * 2
USERS = distinct_users(LENGTHS)
WORLD_SIZES = [1, 2, 3, 7]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_users(tmp_path_factory.mktemp("sets") / "set", USERS)


def stream(dataset: Dataset, **changes: Any) -> TrainStream:
    arguments = {"global_batch_users": 3, "max_events": 6, "rank": 0, "world_size": 1, "seed": 5}
    arguments |= {"partitions": 7, "shuffle_users": 14}
    return TrainStream(dataset, **(arguments | changes))


def of_all_ranks(dataset: Dataset, world_size: int, epoch: int = 0, **changes: int) -> list[list[JaggedBatch]]:
    return [
        list(stream(dataset, rank=rank, world_size=world_size, **changes).epoch(epoch))
        for rank in range(world_size)
    ]


def users_in(batches: list[JaggedBatch]) -> list[int]:
    return [user for batch in batches for user, _ in users_of(batch)]


def same(left: JaggedBatch, right: JaggedBatch) -> bool:
    names = ("item_ids", "behaviours", "timestamps", "offsets", "user_ids")
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in names)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_every_user_comes_once_over_all_ranks(dataset: Dataset, world_size: int) -> None:
    users = [user for batches in of_all_ranks(dataset, world_size) for user in users_in(batches)]
    assert sorted(users) == list(range(len(USERS)))


def global_batches(dataset: Dataset, world_size: int, epoch: int = 0, **changes: int) -> list[dict[int, object]]:
    """Per step the events of each user, over all ranks."""
    steps = zip(*of_all_ranks(dataset, world_size, epoch, **changes), strict=True)
    return [dict(pair for batch in batches for pair in users_of(batch)) for batches in steps]


@pytest.mark.parametrize("world_size", [2, 3, 4, 7])
def test_a_step_holds_the_same_users_on_any_number_of_ranks(dataset: Dataset, world_size: int) -> None:
    for epoch in (0, 3):
        assert global_batches(dataset, world_size, epoch) == global_batches(dataset, 1, epoch)


@pytest.mark.parametrize("partitions", [1, 5, 7, 46, 64])
def test_all_batches_but_the_last_are_full(dataset: Dataset, partitions: int) -> None:
    sizes = [len(step) for step in global_batches(dataset, 1, partitions=partitions, global_batch_users=5)]
    assert sizes == [5] * 9 + [1]


def test_users_come_once_per_epoch_through_any_change_of_ranks(dataset: Dataset) -> None:
    """Killed after any step of an epoch and resumed there on another number of ranks, several times."""
    num_steps = stream(dataset).steps_per_epoch
    for seed in range(20):
        random, step, users = Random(seed), 0, []
        while step < num_steps:
            world_size, stop = random.choice([1, 2, 3, 4, 7]), random.randint(step, num_steps)
            for rank in range(world_size):
                source = stream(dataset, rank=rank, world_size=world_size).epoch(2, start_step=step)
                users += users_in([batch for batch, _ in zip(source, range(stop - step), strict=False)])
            step = stop
        assert sorted(users) == list(range(len(USERS)))


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_a_rank_keeps_its_users_in_every_epoch(dataset: Dataset, world_size: int) -> None:
    for rank in range(world_size):
        source = stream(dataset, rank=rank, world_size=world_size)
        for epoch in range(3):
            assert sorted(users_in(list(source.epoch(epoch)))) == sorted(source.user_ids.tolist())


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_ranks_yield_equally_many_batches(dataset: Dataset, world_size: int) -> None:
    batches = of_all_ranks(dataset, world_size)
    assert {len(of_rank) for of_rank in batches} == {stream(dataset).steps_per_epoch}


@pytest.mark.parametrize("world_size", [1, 7])
def test_ranks_have_equally_many_users_where_they_divide_the_partitions(dataset: Dataset, world_size: int) -> None:
    sizes = [stream(dataset, rank=rank, world_size=world_size).user_ids.numel() for rank in range(world_size)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("max_events", [1, 4, 100])
def test_the_most_training_events_kept_are_kept(dataset: Dataset, max_events: int) -> None:
    for batch in stream(dataset, max_events=max_events).epoch(0):
        for user, events in users_of(batch):
            assert events == training_events_kept(USERS[user], max_events)


def test_no_held_out_event_is_trained_on(dataset: Dataset) -> None:
    held_out = {item for user in USERS if len(user) >= 3 for item, _, _ in user[-2:]}
    trained = {item for batch in stream(dataset, max_events=1000).epoch(0) for item in batch.item_ids.tolist()}
    everything = {item for user in USERS for item, _, _ in user}
    assert trained == everything - held_out


@pytest.mark.parametrize("rank", [0, 1])
def test_an_epoch_resumes_from_any_step_exactly(dataset: Dataset, rank: int) -> None:
    source = stream(dataset, rank=rank, world_size=2)
    whole = list(source.epoch(3))
    for start in range(len(whole) + 1):
        resumed = list(stream(dataset, rank=rank, world_size=2).epoch(3, start_step=start))
        assert len(resumed) == len(whole) - start
        assert all(map(same, resumed, whole[start:]))


def test_what_is_skipped_is_not_read(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    honest = RowGroupReader.read

    def counting(self: RowGroupReader, shard: int, group: int) -> object:
        read.append((shard, group))
        return honest(self, shard, group)

    monkeypatch.setattr(RowGroupReader, "read", counting)
    source = stream(dataset)
    list(source.epoch(0))
    all_groups = len(set(read))
    read.clear()
    assert len(list(source.epoch(0, start_step=source.steps_per_epoch - 1))) == 1
    # 46 users in 7 partitions of 6 or 7: the last buffers hold one or two users each of at most 7 groups.
    assert len(read) <= 7 < all_groups
    read.clear()
    assert list(source.epoch(0, start_step=source.steps_per_epoch)) == []
    assert read == []


def test_readers_change_nothing(dataset: Dataset) -> None:
    assert all(map(same, stream(dataset, readers=1).epoch(0), stream(dataset, readers=5).epoch(0)))


def test_prefetching_changes_nothing(dataset: Dataset) -> None:
    assert all(map(same, stream(dataset, prefetch=1).epoch(0), stream(dataset, prefetch=50).epoch(0)))


def test_order_depends_on_seed_and_epoch_only(dataset: Dataset) -> None:
    first = users_in(list(stream(dataset).epoch(0)))
    assert users_in(list(stream(dataset).epoch(0))) == first
    assert users_in(list(stream(dataset).epoch(1))) != first
    assert users_in(list(stream(dataset, seed=6).epoch(0))) != first


def test_every_epoch_holds_all_users(dataset: Dataset) -> None:
    for epoch in range(4):
        assert sorted(users_in(list(stream(dataset).epoch(epoch)))) == list(range(len(USERS)))


def groups_in(batches: list[JaggedBatch]) -> list[int]:
    """Row groups, in the order in which the epoch first reads them."""
    return list(dict.fromkeys(user // 4 for user in users_in(batches)))


def test_users_are_shuffled_inside_a_buffer(dataset: Dataset) -> None:
    """Buffers of one row group of 4: neither all groups of an epoch nor one group in all epochs are in order."""
    orders: dict[int, set[tuple[int, ...]]] = {}
    for epoch in range(3):
        for batch in stream(dataset, global_batch_users=4, partitions=1, shuffle_users=4).epoch(epoch):
            users = users_in([batch])
            if len(users) == 4 and len({user // 4 for user in users}) == 1:
                orders.setdefault(users[0] // 4, set()).add(tuple(user % 4 for user in users))
    assert {order for of_group in orders.values() for order in of_group} != {(0, 1, 2, 3)}
    assert any(len(of_group) > 1 for of_group in orders.values())


def test_a_batch_mixes_users_of_distant_row_groups(dataset: Dataset) -> None:
    """With a buffer that holds everything, a batch of 12 is never three groups of 4 neighbours."""
    for batch in list(stream(dataset, global_batch_users=12, partitions=1, shuffle_users=1000).epoch(0))[:-1]:
        assert len(groups_in([batch])) > 3


def test_row_groups_are_shuffled_anew_in_every_epoch(dataset: Dataset) -> None:
    """With buffers of 4 users the order of the row groups comes from the shuffling of the slices alone."""
    orders = [
        groups_in(list(stream(dataset, global_batch_users=2, partitions=1, shuffle_users=4).epoch(epoch)))
        for epoch in range(3)
    ]
    assert sorted(orders[0]) == list(range(12))
    assert len({tuple(order) for order in [*orders, list(range(12))]}) == 4


def test_more_ranks_than_users_get_empty_batches(tmp_path: Path) -> None:
    small = write_users(tmp_path / "set", distinct_users([4, 4]))
    batches = [list(stream(small, rank=rank, world_size=5).epoch(0)) for rank in range(5)]
    assert [len(of_rank) for of_rank in batches] == [1] * 5
    assert sum(batch.num_users for [batch] in batches) == 2
    for [batch] in batches:
        assert batch.offsets[0] == 0
        assert batch.offsets[-1] == batch.num_events


def test_batches_are_int64_on_the_cpu(dataset: Dataset) -> None:
    for batch in of_all_ranks(dataset, 7)[0]:
        for tensor in (batch.item_ids, batch.behaviours, batch.timestamps, batch.offsets, batch.user_ids):
            assert tensor.dtype == torch.int64
            assert tensor.device.type == "cpu"


def test_ids_that_floats_lose_stay_exact(tmp_path: Path) -> None:
    """2^24 + 1 is the first whole number that float32 lacks; times above 2^53 are lost to float64."""
    item, time = 2**24 + 1, 2**53 + 1
    large = write_users(tmp_path / "set", [[(item, 1, time), (item + 2, 2, time + 2)]], num_items=2**24 + 4)
    [batch] = stream(large).epoch(0)
    assert batch.item_ids.tolist() == [item, item + 2]
    assert batch.timestamps.tolist() == [time, time + 2]


def test_steps_are_known_without_reading_a_shard(tmp_path: Path) -> None:
    small = write_users(tmp_path / "set", USERS)
    for shard in (tmp_path / "set" / "sequences").iterdir():
        shard.unlink()
    # 46 users in global batches of 3.
    assert stream(small, world_size=3).steps_per_epoch == 16


def test_a_shard_that_breaks_is_a_user_error_in_the_loop(tmp_path: Path) -> None:
    small = write_users(tmp_path / "set", USERS)
    shard = tmp_path / "set" / "sequences" / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"part-00001\.parquet"):
        list(stream(small).epoch(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch_users": 0}, "batch_users and max_events must be >= 1, got 0"),
        ({"max_events": 0}, "batch_users and max_events must be >= 1, got 3 and 0"),
        ({"rank": 2, "world_size": 2}, "got rank 2 of 2"),
        ({"rank": -1}, "got rank -1 of 1"),
        ({"world_size": 8}, "partitions must be >= world_size, got 7 for 8 ranks"),
        ({"shuffle_users": 0}, "shuffle_users, prefetch and readers must be >= 1"),
        ({"readers": 0}, "shuffle_users, prefetch and readers must be >= 1, got 14, 2 and 0"),
        ({"prefetch": 0}, "shuffle_users, prefetch and readers must be >= 1"),
    ],
)
def test_impossible_arguments_are_refused(dataset: Dataset, changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(dataset, **changes)


def test_a_step_outside_the_epoch_is_refused_at_once(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="start_step in \\[0, 16\\], got 0 and 17"):
        stream(dataset).epoch(0, start_step=17)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    world_size=st.integers(1, 5),
    batch_users=st.integers(1, 7),
    partitions=st.integers(5, 12),
    shuffle_users=st.integers(1, 20),
    row_group_users=st.integers(1, 6),
    max_events=st.integers(1, 8),
    epoch=st.integers(0, 3),
)
def test_every_user_and_event_is_right_for_any_sizes(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    world_size: int,
    batch_users: int,
    partitions: int,
    shuffle_users: int,
    row_group_users: int,
    max_events: int,
    epoch: int,
) -> None:
    users = distinct_users(lengths)
    folder = tmp_path_factory.mktemp("sets") / "set"
    small = write_users(folder, users, row_group_users=row_group_users, shard_users=2 * row_group_users)
    changes = {"global_batch_users": batch_users, "shuffle_users": shuffle_users, "max_events": max_events}
    changes["partitions"] = partitions
    batches = of_all_ranks(small, world_size, epoch, **changes)
    assert len({len(of_rank) for of_rank in batches}) == 1
    found = [pair for of_rank in batches for batch in of_rank for pair in users_of(batch)]
    assert sorted(found) == [(user, training_events_kept(events, max_events)) for user, events in enumerate(users)]
    assert global_batches(small, world_size, epoch, **changes) == global_batches(small, 1, epoch, **changes)


def test_a_refit_streams_the_validation_event_as_well(dataset: Dataset) -> None:
    for to, left in (("validation", 1), ("test", 0)):
        batches = list(stream(dataset, max_events=99, train_to=to).epoch(0))
        found = {user: len(events) for batch in batches for user, events in users_of(batch)}
        assert found == {user: n - left * (n >= 3) for user, n in enumerate(LENGTHS)}

"""The evaluation stream: every held-out event exactly once, after its history, on any number of ranks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.small_sets import Event, distinct_users, users_of, write_users
from unigrf_dist.data import Dataset, EvaluationBatch, EvaluationStream

LENGTHS = [1, 2, 3, 4, 9, 30, 5, 5, 1, 3, 12, 7, 2, 8, 6, 3, 3, 40, 1, 4, 11, 5, 6, 1, 1, 2, 2, 1]
USERS = distinct_users(LENGTHS)
WORLD_SIZES = [1, 2, 3, 7]
SPLITS = ["validation", "test"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_users(tmp_path_factory.mktemp("sets") / "set", USERS)


def stream(dataset: Dataset, **changes: Any) -> EvaluationStream:
    arguments = {"split": "test", "batch_users": 5, "max_events": 6, "rank": 0, "world_size": 1}
    return EvaluationStream(dataset, **(arguments | changes))


def seen_of(batch: EvaluationBatch) -> list[list[int]]:
    items, bounds = batch.seen_item_ids.tolist(), batch.seen_offsets.tolist()
    return [items[start:stop] for start, stop in itertools.pairwise(bounds)]


def rows(batch: EvaluationBatch) -> list[tuple[int, list[Event], list[int]]]:
    return [
        (user, events, seen) for (user, events), seen in zip(users_of(batch.batch), seen_of(batch), strict=True)
    ]


def expected(users: list[list[Event]], split: str, max_events: int) -> list[tuple[int, list[Event], list[int]]]:
    rows_of_users = []
    for number, user in enumerate(users):
        if len(user) < 3:
            continue
        until_target = user if split == "test" else user[:-1]
        history, target = until_target[:-1], until_target[-1]
        rows_of_users.append((number, [*history[-max_events:], target], [item for item, _, _ in history]))
    return rows_of_users


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("max_events", [1, 6, 1000])
def test_the_held_out_event_ends_the_most_recent_history(dataset: Dataset, split: str, max_events: int) -> None:
    found = [row for batch in stream(dataset, split=split, max_events=max_events) for row in rows(batch)]
    assert found == expected(USERS, split, max_events)


def test_seen_items_are_not_limited_to_max_events(dataset: Dataset) -> None:
    """With max_events of 6, the user of 40 events has still seen 39 items before the test event."""
    [seen] = [seen for batch in stream(dataset) for user, _, seen in rows(batch) if user == 17]
    assert len(seen) == 39


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_batches_are_the_same_on_any_number_of_ranks(dataset: Dataset, split: str, world_size: int) -> None:
    alone = [rows(batch) for batch in stream(dataset, split=split)]
    by_rank = [
        [rows(batch) for batch in stream(dataset, split=split, rank=rank, world_size=world_size)]
        for rank in range(world_size)
    ]
    assert len({len(of_rank) for of_rank in by_rank}) == 1
    dealt = [batch for step in zip(*by_rank, strict=True) for batch in step]
    assert dealt[: len(alone)] == alone
    assert all(batch == [] for batch in dealt[len(alone) :])


def test_length_is_the_number_of_batches_of_a_rank(dataset: Dataset) -> None:
    # 28 users in batches of 5 are 6; on 4 ranks 2 each.
    assert len(stream(dataset)) == len(list(stream(dataset))) == 6
    for rank in range(4):
        assert len(stream(dataset, rank=rank, world_size=4)) == 2
        assert len(list(stream(dataset, rank=rank, world_size=4))) == 2


def test_a_batch_of_users_without_held_out_events_is_empty(dataset: Dataset) -> None:
    last = list(stream(dataset))[-1]
    assert last.batch.num_users == 0
    assert last.seen_offsets.tolist() == [0]
    assert last.seen_item_ids.dtype == last.batch.item_ids.dtype == torch.int64


def test_it_can_be_iterated_again(dataset: Dataset) -> None:
    source = stream(dataset)
    assert [rows(batch) for batch in source] == [rows(batch) for batch in source]


def test_an_unknown_split_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="split must be 'validation' or 'test', got 'train'"):
        stream(dataset, split="train")


def test_repeated_items_stay_in_what_was_seen(tmp_path: Path) -> None:
    again = write_users(tmp_path / "set", [[(3, 0, 0), (1, 0, 1), (3, 0, 2), (1, 0, 3)]])
    [batch] = stream(again)
    assert seen_of(batch) == [[3, 1, 3]]


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    split=st.sampled_from(SPLITS),
    world_size=st.integers(1, 4),
    batch_users=st.integers(1, 12),
    row_group_users=st.integers(1, 6),
    max_events=st.integers(1, 8),
)
def test_every_held_out_event_comes_once_for_any_sizes(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    split: str,
    world_size: int,
    batch_users: int,
    row_group_users: int,
    max_events: int,
) -> None:
    users = distinct_users(lengths)
    folder = tmp_path_factory.mktemp("sets") / "set"
    small = write_users(folder, users, row_group_users=row_group_users, shard_users=2 * row_group_users)
    changes = {"split": split, "batch_users": batch_users, "max_events": max_events, "world_size": world_size}
    found = [
        row for rank in range(world_size) for batch in stream(small, rank=rank, **changes) for row in rows(batch)
    ]
    assert sorted(found) == expected(users, split, max_events)


def test_what_leaves_the_ranking_is_as_the_rule_says(tmp_path: Path) -> None:
    items = [5, 1, 2, 5, 3, 4, 9, 5]
    again = write_users(tmp_path / "set", [[(item, 0, time) for time, item in enumerate(items)]] * 2)
    for rule, window, seen, removed in (
        ("exclude", 3, items[:-1], True),
        ("window", 3, [3, 4, 9], False),
        ("window", 4, [5, 3, 4, 9], True),
        ("keep", 4, [], False),
    ):
        [batch] = stream(again, seen=rule, max_events=window)
        assert seen_of(batch) == [seen] * 2
        assert batch.target_removed.tolist() == [removed] * 2
        assert batch.target_repeats.tolist() == [True] * 2
    [batch] = stream(again, split="validation")
    assert batch.target_repeats.tolist() == batch.target_removed.tolist() == [False] * 2

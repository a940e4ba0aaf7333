"""The split in time against a plain reading of its definition, and events planted in the future."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.small_sets import Event, users_of, write_users
from unigrf_dist.data import Dataset, EvaluationStream, TrainStream
from unigrf_dist.data.split import SPLITS, Split, TimeSplit

VALIDATION_FROM, TEST_FROM = 40, 60
RULE = TimeSplit(VALIDATION_FROM, TEST_FROM)
# Events of each user by their times; an item identifies its event.
TIMES = [
    [1, 5, 39, 40, 59, 60, 90],  # all three periods, at their very edges
    [1, 2, 3],  # training alone
    [45, 50, 70],  # nothing to train on, but a history before the test event
    [61, 62],  # nothing before the test event
    [10, 65, 66, 80],  # no validation event
    [10, 20, 41],  # no test event
    [39, 39, 40, 40, 60, 60],  # events of one time
    [100],
]


def users_at(times: list[list[int]], planted: int = 0) -> list[list[Event]]:
    """``planted`` is added to the items of the events from validation on."""
    items = itertools.count()
    return [
        [(next(items) + planted * (at >= VALIDATION_FROM), at % 5, at) for at in sorted(of_user)]
        for of_user in times
    ]


def written(folder: Path, users: list[list[Event]]) -> Dataset:
    return write_users(folder, users, num_items=2000, row_group_users=3, shard_users=6).with_split(RULE)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return written(tmp_path_factory.mktemp("sets") / "set", users_at(TIMES))


def trained(dataset: Dataset, **changes: Any) -> list[tuple[int, list[Event]]]:
    arguments = {"global_batch_users": 3, "max_events": 100, "rank": 0, "world_size": 1, "seed": 5}
    return [pair for batch in TrainStream(dataset, **(arguments | changes)).epoch(0) for pair in users_of(batch)]


def evaluated(dataset: Dataset, split: Split) -> dict[int, list[Event]]:
    stream = EvaluationStream(dataset, split=split, batch_users=3, max_events=100, rank=0, world_size=1)
    return {user: events for each in stream for user, events in users_of(each.batch)}


def expected(users: list[list[Event]], split: Split) -> dict[int, list[Event]]:
    """Users with the event to predict and all before it, event by event."""
    start, end = (VALIDATION_FROM, TEST_FROM) if split == "validation" else (TEST_FROM, 10**9)
    found = {}
    for user, events in enumerate(users):
        for position, (_, _, at) in enumerate(events):
            if at >= start:
                if at < end and position > 0:
                    found[user] = events[: position + 1]
                break
    return found


def check(dataset: Dataset, users: list[list[Event]]) -> None:
    before = [[event for event in events if event[2] < VALIDATION_FROM] for events in users]
    assert sorted(trained(dataset)) == list(enumerate(before))
    for split in SPLITS:
        found = evaluated(dataset, split)
        assert found == expected(users, split)
        assert dataset.num_held_out(split) == len(found)
        for events in found.values():
            assert max(at for _, _, at in events) == events[-1][2]
    counts = dataset.training_counts()
    items = [item for events in before for item, _, _ in events]
    assert counts.nonzero()[:, 0].tolist() == sorted(items)
    assert dataset.num_training_events == counts.sum() == len(items)


def test_periods_begin_and_end_where_they_say(dataset: Dataset) -> None:
    check(dataset, users_at(TIMES))
    assert sorted(evaluated(dataset, "validation")) == [0, 5, 6]
    assert sorted(evaluated(dataset, "test")) == [0, 2, 4, 6]


@settings(max_examples=20)
@given(times=st.lists(st.lists(st.integers(30, 70), min_size=1, max_size=8), min_size=1, max_size=9))
def test_any_times_are_split_by_the_definition(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[int]]
) -> None:
    users = users_at(times)
    check(written(tmp_path_factory.mktemp("sets") / "set", users), users)


def test_events_planted_in_the_future_change_nothing_before_it(tmp_path: Path, dataset: Dataset) -> None:
    """Other items after training ends, in the very same places: batches, counts, histories before are the same."""
    other = written(tmp_path / "set", users_at(TIMES, planted=1000))
    assert trained(other) == trained(dataset)
    assert trained(other, max_events=2, chunk_context=1) == trained(dataset, max_events=2, chunk_context=1)
    assert other.training_counts().equal(dataset.training_counts())
    history = {user: events[:-1] for user, events in evaluated(dataset, "validation").items()}
    assert {user: events[:-1] for user, events in evaluated(other, "validation").items()} == history
    assert all(events[-1][0] >= 1000 for events in evaluated(other, "validation").values())


def test_chunks_train_once_on_what_is_before(dataset: Dataset) -> None:
    stream = TrainStream(
        dataset, global_batch_users=2, max_events=1, rank=0, world_size=1, seed=0, chunk_context=1
    )
    once = [
        event
        for batch in stream.epoch(0)
        for (_, events), context in zip(users_of(batch), batch.context_lengths.tolist(), strict=True)
        for event in events[context:]
    ]
    assert sorted(once) == sorted(event for _, events in trained(dataset) for event in events)


def test_the_rule_is_told_in_dates() -> None:
    assert str(TimeSplit(1_706_659_200, 1_706_745_600)).startswith(
        "in time: training before 2024-01-31 00:00:00; "
    )


@pytest.mark.parametrize("chunk_context", [None, 1])
def test_a_refit_is_trained_to_the_end_of_a_period(dataset: Dataset, chunk_context: int | None) -> None:
    for to, end in (("validation", TEST_FROM), ("test", 10**9)):
        found = trained(dataset, train_to=to, chunk_context=chunk_context, max_events=4 if chunk_context else 100)
        events = {(user, event) for user, of_row in found for event in of_row}
        assert events == {
            (user, event) for user, of_user in enumerate(users_at(TIMES)) for event in of_user if event[2] < end
        }

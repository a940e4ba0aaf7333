"""An evaluation under a split in time: nobody, opponents included, knows what comes after the predicted event."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.evaluate.small_data import NUM_ITEMS, TASK_LABELS, Event, LastEventModel, drawn_users, write_users
from unigrf_dist.data import Dataset
from unigrf_dist.data.split import Split, TimeSplit
from unigrf_dist.evaluate.evaluator import EvaluationResult, evaluate
from unigrf_dist.evaluate.training_statistics import training_statistics

VALIDATION_FROM, TEST_FROM = 30, 45
USERS = drawn_users(50, seed=4)


def target_of(user: list[Event], split: Split) -> int | None:
    """Position of the event that the definition predicts."""
    start, end = (VALIDATION_FROM, TEST_FROM) if split == "validation" else (TEST_FROM, 10**9)
    later = [position for position, (_, _, at) in enumerate(user) if at >= start]
    return later[0] if later and later[0] > 0 and user[later[0]][2] < end else None


def with_another_future(split: Split) -> list[list[Event]]:
    """All items and behaviours are others after each user's target, or from the period on where there is none."""
    start = VALIDATION_FROM if split == "validation" else TEST_FROM
    changed = []
    for user in USERS:
        target = target_of(user, split)
        changed.append(
            [
                ((item + 1) % NUM_ITEMS, (behaviour + 1) % 3, at) if at >= start and position != target else event
                for position, event in enumerate(user)
                for item, behaviour, at in [event]
            ]
        )
    return changed


def dataset_of(folder: Path, users: list[list[Event]]) -> Dataset:
    return write_users(folder, users).with_split(TimeSplit(VALIDATION_FROM, TEST_FROM))


def result_of(dataset: Dataset, split: Split) -> EvaluationResult:
    sizes = {"batch_users": 6, "max_events": 5, "rank": 0, "world_size": 1}
    return evaluate(LastEventModel(), dataset, split=split, bootstrap_samples=0, comparisons=True, **sizes)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_another_future_leaves_every_metric_as_it_is(tmp_path: Path, split: Split) -> None:
    dataset, other = (
        dataset_of(tmp_path / "one", USERS),
        dataset_of(tmp_path / "other", with_another_future(split)),
    )
    ours, theirs = result_of(dataset, split), result_of(other, split)
    assert ours.num_users == sum(target_of(user, split) is not None for user in USERS)
    assert ours.protocol["split_rule"].startswith("in time: training before 1970-01-01 00:00:30")
    assert {"popularity", "item_knn", "transition_knn", "ease", "label_regression"} <= set(ours.baselines)
    for name, table in {"model": ours.model, **ours.baselines}.items():
        assert table.to_dict() == {"model": theirs.model, **theirs.baselines}[name].to_dict(), name
    assert ours.settings == theirs.settings


def test_baselines_count_what_is_before_validation(tmp_path: Path) -> None:
    counts = Counter(item for user in USERS for item, _, at in user if at < VALIDATION_FROM)
    statistics = training_statistics(dataset_of(tmp_path / "set", USERS), TASK_LABELS, rank=0, world_size=1)
    assert statistics.counts.tolist() == [counts[item] for item in range(NUM_ITEMS)]
    assert statistics.latest.max() < VALIDATION_FROM

"""Baselines against loops over the users' lists."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.evaluate.small_data import (
    NUM_ITEMS,
    TASK_LABELS,
    TASKS,
    Event,
    drawn_users,
    write_users,
)
from unigrf_dist.data import EvaluationStream
from unigrf_dist.data.seen_rule import SeenRule
from unigrf_dist.evaluate.baselines import SMOOTHING, MostRecent, Popularity, RepeatLast
from unigrf_dist.evaluate.scorer import Scorer
from unigrf_dist.evaluate.training_statistics import NEVER, previous_labels, training_statistics

USERS = drawn_users(40)
ENOUGH = [user for user in USERS if len(user) >= 3]
TRAINING = [user[:-2] if len(user) >= 3 else user for user in USERS]
WINDOW = 4


def stream_of(folder: Path, split: str, seen: SeenRule = "exclude") -> EvaluationStream:
    data = write_users(folder, USERS)
    share = {"batch_users": 7, "max_events": WINDOW, "rank": 0, "world_size": 1}
    return EvaluationStream(data, split=split, seen=seen, **share)


def scored(baseline: Scorer, folder: Path, split: str) -> tuple[list[int], torch.Tensor]:
    """Ranks and logits of all users with a held-out event, in the order of users."""
    scores = [baseline.score_users(batch) for batch in stream_of(folder, split)]
    return torch.cat([s.ranks for s in scores]).tolist(), torch.cat([s.logits for s in scores])


def plain_rank(values: list[float], target: int, seen: set[int]) -> int:
    others = [values[i] for i in range(len(values)) if i != target and i not in seen]
    better, equal = (sum(v > values[target] for v in others), sum(v == values[target] for v in others))
    return 1 + better + -(-equal // 2)


def plain_ranks(values: list[float], split: str) -> list[int]:
    held_out = {"test": -1, "validation": -2}[split]
    return [plain_rank(values, user[held_out][0], {event[0] for event in user[:held_out]}) for user in ENOUGH]


def labels_before(user: list[Event], task: int) -> list[float]:
    return [label for _, b, _ in user if not math.isnan(label := float(TASK_LABELS[b, task]))]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_popularity_ranks_by_training_events(split: str, tmp_path: Path) -> None:
    statistics = training_statistics(write_users(tmp_path / "a", USERS), TASK_LABELS, rank=0, world_size=1)
    counts = Counter(event[0] for user in TRAINING for event in user)
    ranks, _ = scored(Popularity(statistics), tmp_path / "b", split)
    assert ranks == plain_ranks([counts[item] for item in range(NUM_ITEMS)], split)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_most_recent_ranks_by_the_time_of_the_last_training_event(split: str, tmp_path: Path) -> None:
    statistics = training_statistics(write_users(tmp_path / "a", USERS), TASK_LABELS, rank=0, world_size=1)
    latest = [-math.inf] * NUM_ITEMS
    for item, _, time in (event for user in TRAINING for event in user):
        latest[item] = max(latest[item], time)
    assert -math.inf in latest
    assert (statistics.latest == NEVER).tolist() == [time == -math.inf for time in latest]
    ranks, _ = scored(MostRecent(statistics, TASK_LABELS), tmp_path / "b", split)
    assert ranks == plain_ranks(latest, split)


def test_popularity_predicts_the_smoothed_mean_label_of_the_item(tmp_path: Path) -> None:
    statistics = training_statistics(write_users(tmp_path / "a", USERS), TASK_LABELS, rank=0, world_size=1)
    _, logits = scored(Popularity(statistics), tmp_path / "b", "test")
    for task in range(len(TASKS)):
        everything = [label for user in TRAINING for label in labels_before(user, task)]
        average = (sum(everything) + 1) / (len(everything) + 2)
        for user, logit in zip(ENOUGH, logits[:, task].tolist(), strict=True):
            of_item = [e for u in TRAINING for e in u if e[0] == user[-1][0]]
            own = labels_before(of_item, task)
            expected = (sum(own) + SMOOTHING * average) / (len(own) + SMOOTHING)
            assert 1 / (1 + math.exp(-logit)) == pytest.approx(expected, rel=1e-6)


def test_most_recent_predicts_what_followed_the_users_latest_label_in_training(tmp_path: Path) -> None:
    statistics = training_statistics(write_users(tmp_path / "a", USERS), TASK_LABELS, rank=0, world_size=1)
    _, logits = scored(MostRecent(statistics, TASK_LABELS), tmp_path / "b", "test")
    for task in range(len(TASKS)):
        pairs = []
        for user in TRAINING:
            labels = labels_before(user, task)
            pairs += list(pairwise(labels))
        for user, logit in zip(ENOUGH, logits[:, task].tolist(), strict=True):
            known = labels_before(user[-1 - WINDOW : -1], task)
            later = [then for first, then in pairs if not known or first == known[-1]]
            expected = (sum(later) + 1) / (len(later) + 2)
            assert 1 / (1 + math.exp(-logit)) == pytest.approx(expected, rel=1e-9)


def test_previous_labels_pass_over_missing_ones_and_stop_at_the_user() -> None:
    nan = math.nan
    labels = torch.tensor([[1.0], [nan], [0.0], [nan], [nan], [1.0]])
    previous = previous_labels(labels, torch.tensor([0, 3, 3, 6]))
    assert previous[:, 0].nan_to_num(nan=-1).tolist() == [-1, 1, 1, -1, -1, -1]


def test_statistics_do_not_depend_on_the_window_or_hold_held_out_events(tmp_path: Path) -> None:
    statistics = training_statistics(write_users(tmp_path / "a", USERS), TASK_LABELS, rank=0, world_size=1)
    everything = [event for user in TRAINING for event in user]
    assert int(statistics.counts.sum()) == int(statistics.labelled[:, 0].sum()) == len(everything)
    assert int(statistics.labelled[:, 1].sum()) == sum(b >= 2 for _, b, _ in everything)
    assert int(statistics.positive[:, 1].sum()) == sum(b == 2 for _, b, _ in everything)


def test_the_last_items_of_the_window_come_first_and_then_the_popular_ones(tmp_path: Path) -> None:
    statistics = training_statistics(write_users(tmp_path / "a", USERS), TASK_LABELS, rank=0, world_size=1)
    counts = Counter(event[0] for user in TRAINING for event in user)
    expected = []
    for user in ENOUGH:
        latest_first = list(dict.fromkeys(event[0] for event in reversed(user[:-1][-WINDOW:])))
        target = user[-1][0]
        if target in latest_first:
            expected.append(latest_first.index(target) + 1)
        else:
            values = [float(counts[i]) for i in range(NUM_ITEMS)]
            expected.append(len(latest_first) + plain_rank(values, target, set(latest_first)))
    baseline = RepeatLast(statistics)
    batches = stream_of(tmp_path / "b", "test", "keep")
    assert [rank for batch in batches for rank in baseline.score_users(batch).ranks.tolist()] == expected
    assert len({rank for rank in expected if rank <= WINDOW}) > 1

"""What baselines are fitted to, against loops over the users' training events."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.evaluate.small_data import BEHAVIOURS, NUM_ITEMS, TASK_LABELS, Event, drawn_users, write_users
from tests.spawn import run_ranks
from unigrf_dist.data import open_dataset
from unigrf_dist.evaluate import training_statistics as module
from unigrf_dist.evaluate.training_statistics import (
    NEVER,
    TrainingStatistics,
    previous_labels,
    training_statistics,
)

NAN = math.nan
USERS = drawn_users(30, seed=6)


def counted(folder: str, rank: int = 0, world_size: int = 1) -> TrainingStatistics:
    return training_statistics(open_dataset(Path(folder)), TASK_LABELS, rank=rank, world_size=world_size)


def counted_on_this_rank(folder: str) -> TrainingStatistics:
    return counted(folder, dist.get_rank(), dist.get_world_size())


def trained(user: list[Event]) -> list[Event]:
    """The last two events of a user with at least three are held out."""
    return user[:-2] if len(user) >= 3 else user


def assert_defined(ours: TrainingStatistics) -> None:
    events = [event for user in USERS for event in trained(user)]
    counts, labels = Counter(item for item, _, _ in events), TASK_LABELS.tolist()
    assert ours.counts.tolist() == [counts[item] for item in range(NUM_ITEMS)]
    times = [[time for item, _, time in events if item == each] for each in range(NUM_ITEMS)]
    assert ours.latest.tolist() == [max(each, default=NEVER) for each in times]
    assert NEVER == -(2**63)
    for task in range(2):
        given = [(item, labels[behaviour][task]) for item, behaviour, _ in events]
        known = Counter(item for item, label in given if not math.isnan(label))
        positive = Counter(item for item, label in given if label == 1)
        assert ours.labelled[:, task].tolist() == [known[item] for item in range(NUM_ITEMS)]
        assert ours.positive[:, task].tolist() == [positive[item] for item in range(NUM_ITEMS)]
        followed: Counter[tuple[float, float]] = Counter()
        for user in USERS:
            own = [labels[behaviour][task] for _, behaviour, _ in trained(user)]
            own = [label for label in own if not math.isnan(label)]
            followed.update(itertools.pairwise(own))
        assert ours.followed[task].tolist() == [[followed[a, b] for b in (0, 1)] for a in (0, 1)]


@pytest.mark.parametrize("batch_users", [1, 7, 1024])
def test_sums_are_those_of_a_loop_over_events(
    batch_users: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_USERS", batch_users)
    assert_defined(counted(str(write_users(tmp_path / "data", USERS).path)))


def test_two_ranks_sum_to_the_same(tmp_path: Path) -> None:
    folder = str(write_users(tmp_path / "data", USERS).path)
    for ours in run_ranks(2, counted_on_this_rank, folder):
        assert_defined(ours)


def test_the_data_hold_every_transition() -> None:
    assert len(BEHAVIOURS) == len(TASK_LABELS)
    assert {len(trained(user)) for user in USERS} > {1, 2, 20}


def test_the_label_before_an_event_is_the_users_latest() -> None:
    labels = torch.tensor([[1, 0], [NAN, 1], [0, NAN], [NAN, NAN], [1, 1], [NAN, NAN], [0, NAN]])
    before = previous_labels(labels, torch.tensor([0, 4, 4, 7]))
    expected = [[NAN, NAN], [1, 0], [1, 1], [0, 1], [NAN, NAN], [1, 1], [1, 1]]
    assert str(before.tolist()) == str([[float(x) for x in row] for row in expected])


def test_no_events_have_no_labels_before_them() -> None:
    assert previous_labels(torch.zeros(0, 3), torch.tensor([0, 0])).shape == (0, 3)

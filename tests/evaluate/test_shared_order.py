"""Baselines on counts small enough for paper."""

from __future__ import annotations

import math

import pytest
import torch

from unigrf_dist.data import EvaluationBatch, JaggedBatch
from unigrf_dist.evaluate.baselines import MostRecent, Popularity, SharedOrder
from unigrf_dist.evaluate.metrics import NOT_FOUND
from unigrf_dist.evaluate.training_statistics import TrainingStatistics


def batch_of(targets: list[int], seen: list[list[int]], behaviours: list[list[int]]) -> EvaluationBatch:
    """Users with one history event for each but the last of ``behaviours``, and then the target's."""
    items = [[0] * (len(codes) - 1) + [target] for codes, target in zip(behaviours, targets, strict=True)]
    flat = torch.tensor([item for user in items for item in user])
    codes = torch.tensor([code for user in behaviours for code in user])
    offsets = torch.tensor([0, *torch.tensor([len(user) for user in items]).cumsum(0).tolist()])
    events = JaggedBatch(flat, codes, torch.arange(len(flat)), offsets, torch.arange(len(items)))
    seen_offsets = torch.tensor([0, *torch.tensor([len(user) for user in seen]).cumsum(0).tolist()])
    seen_items = torch.tensor([item for user in seen for item in user]).long()
    return EvaluationBatch(events, seen_items, seen_offsets, torch.zeros(len(items), dtype=torch.bool))


def statistics_of(counts: list[int]) -> TrainingStatistics:
    return TrainingStatistics(
        counts=torch.tensor(counts),
        latest=torch.tensor(counts),
        labelled=torch.tensor([[3], [1]]),
        positive=torch.tensor([[3], [0]]),
        followed=torch.tensor([[[4, 1], [2, 7]]]),
    )


def test_seen_items_are_left_out_once_each_and_the_target_never() -> None:
    values = torch.tensor([5, 3, 3, 3, 1, 9])
    seen = [[0, 1, 1, 2, 0], [], [5], [5, 0], [4]]
    batch = batch_of([2, 4, 5, 1, 3], seen, [[0]] * 5)
    # User 0, target 2: item 5 is better, item 3 equal. User 1: all are better than item 4. User 3: 2 and 3 are
    # equal to item 1. User 4: 0 and 5 are better than item 3, 1 and 2 equal.
    assert SharedOrder(values).ranks(batch).tolist() == [1 + 1 + 1, 1 + 5, 1, 1 + 0 + 1, 1 + 2 + 1]


def test_items_without_a_row_stand_before_nobody_and_are_never_found() -> None:
    values, live = torch.tensor([5, 3, 3, 3, 1, 9]), torch.tensor([True, True, True, False, True, False])
    batch = batch_of([2, 4, 5, 1, 3], [[0, 1, 1, 2, 0], [5], [0], [5, 0, 3], []], [[0]] * 5)
    # User 0 has seen both live items before item 2. User 1: 0, 1 and 2 are better than item 4. User 3: 2 equals 1.
    expected = [1, 1 + 3, NOT_FOUND, 1 + 0 + 1, NOT_FOUND]
    assert SharedOrder(values, live).ranks(batch).tolist() == expected


def test_popularity_smooths_labels_by_ten_events_of_the_average() -> None:
    scores = Popularity(statistics_of([3, 1])).score_users(batch_of([0, 1], [[], []], [[0], [0]]))
    # The average is (3 + 1) / (4 + 2); item 0 has 3 of 3 positive, item 1 has 0 of 1.
    first = (3 + 20 / 3) / (0 + 10 / 3)
    second = (20 / 3) / (1 + 10 / 3)
    assert scores.logits[:, 0].tolist() == pytest.approx([math.log(first), math.log(second)])
    assert scores.ranks.tolist() == [1, 2]


def test_the_latest_label_before_the_target_decides() -> None:
    task_labels = torch.tensor([[0.0], [1.0], [math.nan]])
    behaviours = [[1, 0, 1], [0, 1, 0], [1, 2, 0], [2, 2, 1], [1]]
    baseline = MostRecent(statistics_of([7, 9]), task_labels)
    scores = baseline.score_users(batch_of([0, 0, 1, 1, 0], [[]] * 5, behaviours))
    after_0, after_1, after_nothing = (1 + 1) / (4 + 1), (7 + 1) / (2 + 1), (8 + 1) / (6 + 1)
    odds = [after_0, after_1, after_1, after_nothing, after_nothing]
    assert scores.logits[:, 0].tolist() == pytest.approx([math.log(odd) for odd in odds])
    assert scores.ranks.tolist() == [2, 2, 1, 1, 2]

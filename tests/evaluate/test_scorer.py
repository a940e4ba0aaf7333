"""What is taken from a batch and from a model to score users."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from unigrf_dist.data import EvaluationBatch, JaggedBatch
from unigrf_dist.evaluate.scorer import ModelScorer, no_users, target_items, target_labels
from unigrf_dist.model.unigrf import SequenceScores

EVENTS = JaggedBatch(
    item_ids=torch.tensor([4, 8, 6, 3, 9]),
    behaviours=torch.tensor([0, 1, 1, 0, 2]),
    timestamps=torch.arange(5),
    offsets=torch.tensor([0, 2, 5]),
    user_ids=torch.tensor([31, 17]),
)
BATCH = EvaluationBatch(
    EVENTS, torch.tensor([4, 6, 3, 5]), torch.tensor([0, 1, 4]), torch.zeros(2, dtype=torch.bool)
)


class FakeCatalogue:
    """Keeps what it was asked for."""

    def target_ranks(self, *asked: torch.Tensor) -> torch.Tensor:
        self.asked = asked
        return torch.tensor([12, 5])


def fake_model(valid: list[bool]) -> SimpleNamespace:
    catalogue = FakeCatalogue()
    logits = torch.tensor([[0.1, 2.0], [-3.0, 0.5]], requires_grad=True)
    scores = SequenceScores(torch.tensor([[1.0], [2.0]]), logits, torch.tensor(valid))
    return SimpleNamespace(catalogue=lambda: catalogue, score=lambda batch: scores)


def test_targets_are_the_last_events_of_the_users() -> None:
    assert target_items(EVENTS).tolist() == [8, 9]
    task_labels = torch.tensor([[0.0, math.nan], [1.0, 0.0], [1.0, 1.0]])
    assert target_labels(EVENTS, task_labels).tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert target_labels(EVENTS, task_labels).dtype == torch.float64


def test_a_model_ranks_the_targets_among_what_was_not_seen() -> None:
    model = fake_model([True, True])
    scores = ModelScorer(model).score_users(BATCH)
    queries, targets, seen, offsets = model.catalogue().asked
    assert queries.tolist() == [[1.0], [2.0]]
    assert (targets.tolist(), seen.tolist(), offsets.tolist()) == ([8, 9], [4, 6, 3, 5], [0, 1, 4])
    assert scores.ranks.tolist() == [12, 5]
    assert scores.logits.tolist() == torch.tensor([[0.1, 2.0], [-3.0, 0.5]]).double().tolist()
    assert (scores.logits.dtype, scores.logits.requires_grad) == (torch.float64, False)


def test_a_user_without_a_query_is_refused_by_id() -> None:
    with pytest.raises(ValueError, match=r"^users \[17\] have no event before the held-out one"):
        ModelScorer(fake_model([True, False])).score_users(BATCH)


def test_five_users_without_a_query_are_named_at_most() -> None:
    codes = torch.zeros(7, dtype=torch.int64)
    events = JaggedBatch(codes, codes, codes, torch.arange(8), torch.arange(20, 27))
    scores = SequenceScores(torch.zeros(7, 1), torch.zeros(7, 1), torch.tensor([True] + [False] * 6))
    model = SimpleNamespace(catalogue=FakeCatalogue, score=lambda batch: scores)
    with pytest.raises(ValueError, match=r"^users \[21, 22, 23, 24, 25\] have"):
        ModelScorer(model).score_users(EvaluationBatch(events, torch.zeros(0), torch.zeros(8), torch.zeros(7)))


def test_nobody_has_neither_ranks_nor_logits() -> None:
    scores = no_users(3)
    assert (scores.ranks.shape, scores.ranks.dtype) == ((0,), torch.int64)
    assert (scores.logits.shape, scores.logits.dtype) == ((0, 3), torch.float64)

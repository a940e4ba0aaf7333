"""Retrieval of chosen events only, and retrieval without any ranking task."""

from __future__ import annotations

import math

import pytest
import torch

from unigrf_dist.config.schema import Config
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.objective.negatives import Negatives
from unigrf_dist.phases import Phases

NUM_ITEMS = 6
NOBODY: list[list[float]] = [[], [], []]
# Users of 3 and 2 events.
BATCH = JaggedBatch(
    item_ids=torch.tensor([0, 1, 2, 3, 4]),
    behaviours=torch.tensor([1, 2, 0, 0, 2]),
    timestamps=torch.arange(5),
    offsets=torch.tensor([0, 3, 5]),
    user_ids=torch.arange(2),
)


def model_of(labels: list[list[float]], targets: list[bool] | None = None) -> UniGRF:
    config = {
        "data": {"path": "unused", "max_events": 8},
        "model": {"width": 4, "heads": 1, "head_width": 4, "blocks": 1, "dropout": 0.0},
        "objective": {
            "ranking": [{"rule": "rating >= 4"}] if labels[0] else [],
            "retrieval": {"mask_seen_negatives": False},
        },
        "train": {"global_batch_users": 2, "epochs": 1},
        "deepspeed": {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}},
    }
    torch.manual_seed(0)
    return UniGRF(Config.model_validate(config), labels, num_items=NUM_ITEMS, phases=Phases(), targets=targets)


def retrieval_sum(model: UniGRF) -> float:
    """All vectors are alike: each pair that counts costs log 6."""
    table = torch.ones(NUM_ITEMS, 4)
    negatives = Negatives(torch.arange(NUM_ITEMS), distinct=True)
    sums = model(table[BATCH.item_ids], BATCH, None, negatives, table)
    if not model.num_tasks:
        assert sums.ranking.item() == 0
    sums.retrieval.backward()
    return float(sums.retrieval.item())


@pytest.mark.parametrize("labels", [[[0.0], [1.0], [math.nan]], NOBODY], ids=["with ranking", "alone"])
@pytest.mark.parametrize(
    ("targets", "pairs"),
    [(None, 3), ([True] * 3, 3), ([True, False, False], 1), ([False, False, True], 2), ([False, True, False], 0)],
)
def test_pairs_are_those_whose_next_event_is_a_target(
    labels: list[list[float]], targets: list[bool] | None, pairs: int
) -> None:
    """Codes that come next: 2 and 0 of the first user, 2 of the second."""
    model = model_of(labels, targets)
    assert retrieval_sum(model) == pytest.approx(pairs * math.log(6), rel=1e-5)
    assert model.count_positions(BATCH).tolist() == [pairs, 3 if labels[0] else 0]


def test_without_tasks_there_is_no_head_to_train_and_no_logit() -> None:
    model = model_of(NOBODY)
    assert not any("head" in name for name in (*dict(model.named_parameters()), *model.state_dict()))
    scores = model(torch.ones(5, 4), BATCH)
    assert scores.ranking_logits.shape == (2, 0)
    assert scores.valid.all()

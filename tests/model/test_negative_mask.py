"""The model's retrieval loss masks what the user has seen, unless told otherwise."""

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


def model_of(**retrieval: object) -> UniGRF:
    config = {
        "data": {"path": "unused", "max_events": 8},
        "model": {"width": 4, "heads": 1, "head_width": 4, "blocks": 1, "dropout": 0.0},
        "objective": {"ranking": [{"rule": "rating >= 4"}], "retrieval": retrieval},
        "train": {"global_batch_users": 2, "epochs": 1},
        "deepspeed": {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}},
    }
    return UniGRF(Config.model_validate(config), [[0.0], [1.0]], num_items=NUM_ITEMS, phases=Phases())


def losses(model: UniGRF) -> float:
    """Retrieval loss of two users, one of whom has item 5 in the prior history; all vectors are alike."""
    ids = torch.tensor([0, 1, 2, 3, 4])
    batch = JaggedBatch(
        item_ids=ids,
        behaviours=torch.zeros(5, dtype=torch.int64),
        timestamps=torch.arange(5),
        offsets=torch.tensor([0, 3, 5]),
        user_ids=torch.arange(2),
        prior_item_ids=torch.tensor([5]),
        prior_offsets=torch.tensor([0, 0, 1]),
    )
    table = torch.ones(NUM_ITEMS, 4)
    negatives = Negatives(torch.arange(NUM_ITEMS), distinct=True)
    return model(table[ids], batch, None, negatives, table).retrieval.item()


def test_the_softmax_runs_over_what_the_user_has_not_seen() -> None:
    # Equal logits. User 0 has seen 1 and then 2 of 6 items, user 1 has seen 2, one of them in the prior history.
    assert losses(model_of()) == pytest.approx(math.log(5) + math.log(4) + math.log(4), rel=1e-5)


def test_all_items_are_negatives_if_asked_for() -> None:
    assert losses(model_of(mask_seen_negatives=False)) == pytest.approx(3 * math.log(6), rel=1e-5)

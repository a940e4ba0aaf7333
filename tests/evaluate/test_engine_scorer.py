"""What evaluation scores is what training computed at the same tokens of the same sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.small_model import LABELS, RULES
from tests.spawn import run_ranks
from tests.train.small_features import FEATURES
from tests.train.small_run import global_batch, join, small_config, small_step

LENGTHS = [5, 1, 0, 7, 2]
NUM_CANDIDATES = 3
ENHANCER = {"candidates": NUM_CANDIDATES, "hard_negatives": 1, "soft_positives": 1, "warmup_epochs": 1}
SETTINGS = {"objective__ranking": RULES, "objective__enhancer": ENHANCER, "model__dropout": 0.3, **FEATURES}


@dataclass
class Both:
    """What the scorer says of a batch, and each user's hidden states of a training forward with its logits."""

    queries: Tensor
    logits: Tensor
    valid: Tensor
    hidden: Tensor
    trained_logits: Tensor
    still_trains: bool
    again: Tensor


def both(changes: dict[str, Any]) -> Both:
    from unigrf_dist.evaluate.engine_scorer import EngineScorer

    config = small_config(**SETTINGS, **changes)
    step, batch, states = small_step(config, labels=LABELS), join(global_batch(0, LENGTHS)), []
    # Features start at zero, and the first candidates come of a step.
    for number in range(2):
        step(batch, number)
    scorer = EngineScorer(config, step.engine, step.table, LABELS)
    scores, again = scorer.score(batch), scorer.score(batch)
    module = step.engine.module
    head = (module.head_weight.detach().clone(), module.head_bias.detach().clone())
    module.backbone.register_forward_hook(lambda _, __, output: states.append(output.detach().clone()))
    step._dropout_seed = lambda _: None
    is_training = module.training
    step(batch, 2)
    return Both(
        scores.queries,
        scores.ranking_logits,
        scores.valid,
        states[0],
        states[0] @ head[0].T + head[1],
        is_training,
        again.queries,
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"model__backbone": "llama"}, {"model__query_time_visible": True, "model__behaviours_carry_items": True}],
    ids=["hstu", "llama", "visible_times"],
)
def test_the_scorer_says_what_training_computes_at_those_tokens(changes: dict) -> None:
    (result,) = run_ranks(1, both, changes)
    assert result.valid.tolist() == [length >= 2 for length in LENGTHS]
    assert result.still_trains
    assert torch.equal(result.again, result.queries), "evaluation drops nothing at random"
    start = 0
    for user, length in enumerate(LENGTHS):
        last_item = start + 2 * (length - 1)
        start += 2 * length + NUM_CANDIDATES
        if length >= 2:
            # The behaviour of the event before the held-out one stands right before the held-out item.
            assert_near(result.queries[user], result.hidden[last_item - 1])
            assert_near(result.logits[user], result.trained_logits[last_item])
    assert start == len(result.hidden)


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)

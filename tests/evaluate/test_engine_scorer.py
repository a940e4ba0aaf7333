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
from unigrf_dist.evaluate.engine_scorer import EngineScorer
from unigrf_dist.model.table_shard import TableShard

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


class FakeEngine:
    """Says in which mode it was called, and on what."""

    def __init__(self) -> None:
        self.training, self.calls = True, []

    def train(self) -> None:
        self.training = True

    def eval(self) -> None:
        self.training = False

    def __call__(self, *given: object) -> str:
        self.calls.append((given, self.training, torch.is_grad_enabled()))
        return "scores"


class FakeTable:
    num_items, num_rows, width, device, live = 5, 5, 3, torch.device("cpu"), None

    def lookup(self, ids: Tensor, batch: object) -> tuple[tuple, str, None]:
        return ("items", ids.tolist()), "side", None

    def shards(self) -> list[TableShard]:
        # A column of padding, and an item that is best by its length alone.
        rows = torch.tensor([[1.0, 0, 0], [1, 9, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]])
        return [TableShard(0, 0, torch.cat([rows, torch.full((5, 1), 7.0)], dim=1))]


def scorer(engine: Any, **changes: Any) -> EngineScorer:
    config = small_config(objective__ranking=RULES, **changes)
    return EngineScorer(config, engine, FakeTable(), LABELS)  # type: ignore[arg-type]


def test_the_engine_is_asked_in_evaluation_mode_without_gradients() -> None:
    engine, batch = FakeEngine(), join(global_batch(0, [2, 3]))
    assert scorer(engine).score(batch) == "scores"
    (((items, on_device, side), in_training, with_gradients),) = engine.calls
    assert items == ("items", batch.item_ids.tolist())
    assert side == "side"
    assert on_device.offsets.tolist() == batch.offsets.tolist()
    assert not in_training
    assert not with_gradients
    assert engine.training


def test_tasks_are_those_of_the_configuration() -> None:
    of = scorer(FakeEngine())
    assert of.task_names == [rule["rule"] for rule in RULES]
    assert str(of.task_labels.tolist()) == str(LABELS)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_catalogue_compares_as_the_loss_does_and_leaves_padding_out(normalize: bool) -> None:
    catalogue = scorer(FakeEngine(), objective__retrieval__normalize=normalize).catalogue()
    none = torch.zeros(0, dtype=torch.int64)
    ids, scores = catalogue.top_k(torch.tensor([[2.0, 0.25, 0.0]]), 5, none, torch.tensor([0, 0]))
    assert ids.tolist() == [[0, 1, 2, 3, 4] if normalize else [1, 0, 2, 3, 4]]
    lengths = (2**2 + 0.25**2) ** 0.5
    highest = 2 / lengths if normalize else 2 + 9 * 0.25
    assert scores[0, 0].item() == pytest.approx(highest, abs=1e-5)

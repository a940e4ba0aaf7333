"""A real step against the method's definition: what is looked up, weighted, differentiated, updated and kept.

The table's optimizer is SGD and Adam's ``eps`` is 1, so that every update shows the size of its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.reference import Expected, Reference
from tests.model.reference_transducer import Vectors
from tests.model.small_model import LABELS, RULES
from tests.spawn import run_ranks
from tests.train.small_run import NUM_ITEMS, global_batch, join, small_config, small_step, whole_weights
from unigrf_dist.config.schema import Config
from unigrf_dist.data.batch import JaggedBatch

LENGTHS = [5, 1, 0, 7, 2]
STEPS = 2  # in the second one candidates ride along
RATE = 0.1
ADAM = {"type": "AdamW", "params": {"lr": RATE, "betas": [0.9, 0.98], "eps": 1.0}}
ENHANCER = {"candidates": 5, "hard_negatives": 2, "soft_positives": 2, "threshold": 0.5, "warmup_epochs": 1}
PLAIN = {
    "objective__ranking": RULES,
    "tables__optimizer": "sgd",
    "tables__init_std": 0.5,
    "deepspeed__optimizer": ADAM,
    "deepspeed__gradient_clipping": 0.0,
}
NEGATIVES = "objective__retrieval__negatives"
CASES: dict[str, dict[str, Any]] = {
    "full": {"objective__weighter": {"retrieval": 3.0, "ranking": 1.0}},
    "in_batch": {NEGATIVES: "in_batch"},
    "mixed": {
        NEGATIVES: "mixed",
        "objective__retrieval__num_negatives": 40,
        "objective__retrieval__distribution": "log_popularity",
        "model__backbone": "llama",
    },
    "retrieval_alone": {"objective__weighter": {"retrieval": 1.0, "ranking": 0.0}},
    "ranking_alone": {"objective__weighter": {"retrieval": 0.0, "ranking": 4.0}},
}


@dataclass
class Recorded:
    """One step of a run: all weights around it, what it was given and what it said."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    negative_ids: list[int]
    candidate_ids: Tensor | None
    next_candidate_ids: Tensor
    loss: Tensor
    losses: Tensor
    weights: Tensor
    grad_norms: Tensor
    enhancer_counts: Tensor


def batch_of(number: int) -> JaggedBatch:
    """Few items, so that they come again, and never the one that training has not seen; two prior histories."""
    batch = join(global_batch(number, LENGTHS))
    return replace(
        batch,
        item_ids=batch.item_ids % 25 + 1,
        prior_item_ids=torch.tensor([26, 27, 3]),
        prior_offsets=torch.tensor([0, 2, 2, 2, 3, 3]),
    )


def config_of(changes: dict[str, Any]) -> Config:
    return small_config(**PLAIN, **{"objective__enhancer": ENHANCER, **changes})


def recorded(changes: dict[str, Any]) -> list[Recorded]:
    step, records = small_step(config_of(changes), labels=LABELS), []
    for number in range(STEPS):
        batch, before = batch_of(number), whole_weights(step)
        candidates = step.candidates.read(batch.user_ids)
        ids = step.negatives.draw(number, batch).ids.tolist()
        outcome = step(batch, number, epoch=0)
        kept = step.candidates.values()[batch.user_ids].long()
        said = (outcome.loss, outcome.losses, outcome.weights, outcome.grad_norms, outcome.enhancer_counts)
        records.append(Recorded(before, whole_weights(step), ids, candidates, kept, *said))
    return records


def leaf(value: Tensor) -> Tensor:
    return value.double().requires_grad_()


@dataclass
class Defined:
    """What one recorded step should have been: values and gradients of the weighted global loss."""

    expected: Expected
    losses: Tensor
    weights: Tensor
    table_gradient: Tensor
    gradients: dict[str, Tensor]


def defined(config: Config, number: int, record: Recorded) -> Defined:
    values = {name: leaf(value) for name, value in record.before.items()}
    table, batch = values.pop("item table"), batch_of(number)
    candidates = None if record.candidate_ids is None else table[record.candidate_ids.clamp_min(0)]
    expected = Reference(config, LABELS, list(range(NUM_ITEMS)), values).expected(
        batch,
        Vectors(table[batch.item_ids], table[record.negative_ids], candidates=candidates),
        record.negative_ids,
        record.candidate_ids,
    )
    counts = torch.tensor(expected.counts)
    losses = torch.stack([expected.retrieval, expected.ranking]) / counts
    proportion = config.objective.weighter
    weights = torch.tensor([proportion.retrieval, proportion.ranking], dtype=torch.float64)
    weights = weights * 2 / weights.sum()
    leaves = {"table": table, **values}
    loss = (losses * weights).sum()
    of_leaves = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    gradients = dict(zip(leaves, of_leaves, strict=True))
    return Defined(expected, losses.detach(), weights, gradients.pop("table"), gradients)


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def run(request: pytest.FixtureRequest) -> tuple[list[Recorded], list[Defined]]:
    (records,) = run_ranks(1, recorded, request.param)
    config = config_of(request.param)
    return records, [defined(config, number, record) for number, record in enumerate(records)]


def assert_near(ours: Tensor, theirs: Tensor, name: str = "") -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=2e-6, msg=lambda text: name + text)


def test_losses_weights_and_norms_are_those_of_the_definition(run: tuple) -> None:
    for record, definition in zip(*run, strict=True):
        norms = torch.tensor(definition.expected.sq_norms).sqrt() / torch.tensor(definition.expected.counts)
        assert_near(record.losses, definition.losses)
        assert_near(record.weights, definition.weights)
        assert_near(record.loss, (definition.losses * definition.weights).sum())
        assert_near(record.grad_norms, norms)


def test_the_table_moves_by_its_rate_times_its_gradient(run: tuple) -> None:
    for record, definition in zip(*run, strict=True):
        moved = record.after["item table"].double() - record.before["item table"].double()
        assert definition.table_gradient.abs().max() > 1e-3
        assert_near(moved / -RATE, definition.table_gradient)


def test_the_dense_parameters_move_by_adam_on_their_gradients(run: tuple) -> None:
    names = [name for name in run[0][0].before if name != "item table"]
    weights = {name: torch.nn.Parameter(run[0][0].before[name].double()) for name in names}
    adam = torch.optim.AdamW(weights.values(), lr=RATE, betas=(0.9, 0.98), eps=1.0, weight_decay=0.0)
    for record, definition in zip(*run, strict=True):
        for name, value in weights.items():
            value.data.copy_(record.before[name])
            value.grad = definition.gradients[name]
        adam.step()
        for name, value in weights.items():
            moved, expected = record.after[name] - record.before[name], value.detach() - record.before[name]
            assert_near(moved / RATE, expected / RATE, name)


def test_the_next_steps_candidates_and_the_targets_are_those_of_the_definition(run: tuple) -> None:
    first, second = run[0]
    assert first.candidate_ids is None
    assert torch.equal(second.candidate_ids, first.next_candidate_ids)
    for record, definition in zip(*run, strict=True):
        assert record.next_candidate_ids.tolist() == definition.expected.next_candidates
        targets = definition.expected.targets
        counts = [
            sum(len(getattr(user, name)) for user in targets) for name in ("hard_negatives", "soft_positives")
        ]
        assert record.enhancer_counts.tolist() == counts
    assert second.enhancer_counts.min() > 0


def test_a_task_of_weight_0_moves_nothing_that_is_its_own(run: tuple) -> None:
    last = run[0][-1]
    heads = [name for name in last.before if name.startswith("head_")]
    assert len(heads) == 2
    for name in heads:
        assert torch.equal(last.before[name], last.after[name]) == (last.weights[1] == 0)
    # Ranking reads the batch's own items alone; retrieval also negatives or candidates.
    others = torch.ones(NUM_ITEMS, dtype=torch.bool)
    others[batch_of(STEPS - 1).item_ids] = False
    moved = (last.after["item table"] != last.before["item table"])[others]
    assert moved.any() == (last.weights[0] > 0)

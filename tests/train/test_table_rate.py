"""The table's learning rate: its own, and in proportion to the dense schedule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.data.small_sets import distinct_users, write_users
from tests.spawn import run_ranks
from tests.train.small_run import NUM_ITEMS, small_config, whole_weights

STEPS = 3
ITEM = "item table"
DENSE_RATE, TABLE_RATE = 1e-2, 4e-2
WARMUP = {
    "type": "WarmupLR",
    "params": {
        "warmup_min_lr": 1e-3,
        "warmup_max_lr": DENSE_RATE,
        "warmup_num_steps": STEPS,
        "warmup_type": "linear",
    },
}


def plain_gradient(step: Any, table: Tensor, batch: Any, number: int) -> Tensor:
    """``[num_items, D]`` gradient of the loss by the whole table, past the engine and the sharded lookup."""
    table = table.clone().requires_grad_()
    negatives, module = step.negatives.draw(number, batch), step.engine.module
    sums = module(table[batch.item_ids], batch, None, negatives, table[negatives.ids])
    means = torch.stack([sums.retrieval, sums.ranking]) / module.count_positions(batch)
    return torch.autograd.grad((means * step.weighter.weights).sum(), table)[0]


@dataclass
class Moved:
    """A step: the dense rate, the table's gradient, and all weights before and after."""

    dense_rate: float
    gradient: Tensor
    before: dict[str, Tensor]
    after: dict[str, Tensor]

    def moves(self) -> dict[str, Tensor]:
        return {name: self.after[name] - before for name, before in self.before.items()}


def run(data: Path, changes: dict[str, Any]) -> list[Moved]:
    """The steps of a run as the trainer builds it."""
    from unigrf_dist.phases import Phases
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.loop import build_step, build_stream

    config = small_config(data__path=str(data), tables__optimizer="sgd", **changes)
    parts = build_parts(config, start(60), Phases())
    stream = build_stream(parts)
    step, steps = build_step(parts, stream), []
    (batch,) = stream.epoch(0)
    for number in range(STEPS):
        before, rate = whole_weights(step), step.learning_rate
        gradient = plain_gradient(step, before[ITEM], batch, number)
        step(batch, number)
        steps.append(Moved(rate, gradient, before, whole_weights(step)))
    return steps


def all_runs(data: Path) -> dict[str, list[Moved]]:
    return {name: run(data, changes) for name, changes in RUNS.items()}


def rates(dense: float, table: float, **more: Any) -> dict[str, Any]:
    optimizer = {"type": "AdamW", "params": {"lr": dense, "betas": [0.9, 0.98]}}
    return {"deepspeed__optimizer": optimizer, "tables__learning_rate": table, **more}


RUNS = {
    "plain": rates(DENSE_RATE, TABLE_RATE),
    "other_table_rate": rates(DENSE_RATE, 2 * TABLE_RATE),
    "other_dense_rate": rates(2 * DENSE_RATE, TABLE_RATE),
    "schedule": rates(DENSE_RATE, TABLE_RATE, deepspeed__scheduler=WARMUP),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Moved]]:
    folder = tmp_path_factory.mktemp("data") / "set"
    write_users(folder, distinct_users([9, 5, 12, 4]), num_items=NUM_ITEMS)
    return run_ranks(1, all_runs, folder)[0]


@pytest.mark.parametrize("name", RUNS)
def test_the_table_moves_at_its_own_rate_as_far_as_the_schedule_has_come(
    runs: dict[str, list[Moved]], name: str
) -> None:
    table, dense = RUNS[name]["tables__learning_rate"], RUNS[name]["deepspeed__optimizer"]["params"]["lr"]
    dense_rates = {step.dense_rate for step in runs[name]}
    assert len(dense_rates) > 1 if name == "schedule" else dense_rates == {dense}
    for step in runs[name]:
        expected = -table * step.dense_rate / dense * step.gradient
        assert expected.abs().max() > 1e-5
        torch.testing.assert_close(step.moves()[ITEM], expected, rtol=1e-3, atol=1e-7)


def test_each_rate_moves_its_own_part_alone(runs: dict[str, list[Moved]]) -> None:
    other_table, other_dense = (runs[name][0].moves() for name in ("other_table_rate", "other_dense_rate"))
    for name, moved in runs["plain"][0].moves().items():
        assert moved.abs().max() > 1e-4
        by_table, by_dense = (2, 1) if name == ITEM else (1, 2)
        torch.testing.assert_close(other_table[name], by_table * moved, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(other_dense[name], by_dense * moved, rtol=1e-3, atol=1e-6)

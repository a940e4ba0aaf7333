"""Averaged weights: by definition, in checkpoints, on other ranks, and the model's own bits afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.spawn import run_ranks
from tests.train.small_run import small_config, whole_weights
from tests.train.stored import latest, stored_values
from tests.train.test_checkpoint import advance, dealt_step

DECAY, STEPS, SAVED_AFTER = 0.6, 5, 3
AVERAGE = {"train__average": {"decay": DECAY}}


def averaged_run(run: Path, config: Any) -> dict[str, Any]:
    """Weights after every step, the average at the end, and the same after a resume in the middle."""
    from unigrf_dist.train.average import AveragedWeights
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    def parts() -> tuple[Any, Any, Any]:
        step = dealt_step(config)
        average = AveragedWeights(config.train.average, step.engine, step.table)
        return step, average, Checkpoints(run, step.engine, step.table, keep=1, average=average)

    def averages(step: Any, average: Any) -> dict[str, torch.Tensor]:
        with average.in_use():
            tables = {name: value for name, value in whole_weights(step).items() if name.endswith("table")}
        return average.dense_weights() | tables

    step, average, checkpoints = parts()
    path = [whole_weights(step)]
    for number in range(STEPS):
        advance(step, number, number + 1)
        average.update(number + 1)
        path.append(whole_weights(step))
        if number + 1 == SAVED_AFTER:
            checkpoints.save(TrainState(step=SAVED_AFTER))
    found = averages(step, average)
    with average.in_use():
        seen = {n: p.detach().clone() for n, p in step.engine.module.named_parameters() if p.numel()}
    after = whole_weights(step)
    step, average, checkpoints = parts()
    checkpoints.load("latest")
    for number in range(SAVED_AFTER, STEPS):
        advance(step, number, number + 1)
        average.update(number + 1)
    resumed = averages(step, average)
    checkpoints.save(TrainState(step=STEPS))
    Checkpoints(run, step.engine, step.table, keep=1).load("latest", weights_only=True)
    loaded = whole_weights(step)
    return {"path": path, "average": found, "seen": seen, "after": after, "resumed": resumed, "loaded": loaded}


def by_definition(path: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    average = {name: value.double() for name, value in path[0].items()}
    for number, weights in enumerate(path[1:], start=1):
        kept = min(DECAY, number / (number + 9))
        average = {name: kept * average[name] + (1 - kept) * weights[name].double() for name in average}
    return average


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_it_is_the_moving_average_on_all_ranks_and_after_a_resume(stage: int, tmp_path: Path) -> None:
    config = small_config(stage=stage, **AVERAGE)
    ranks = 2 if stage else 1
    results = run_ranks(ranks, averaged_run, tmp_path / "run", config)
    whole = results[0]
    expected = by_definition(whole["path"])
    for result in results:
        for name, value in expected.items():
            assert torch.allclose(result["average"][name].double(), value, atol=1e-6), name
            # Training goes on from its own weights, and who loads weights alone gets the average.
            assert torch.equal(result["after"][name], result["path"][-1][name]), name
            assert torch.equal(result["resumed"][name], result["average"][name]), name
            assert torch.equal(result["loaded"][name], result["average"][name]), name
    if stage < 3:
        assert all(torch.equal(value, whole["average"][name]) for name, value in whole["seen"].items())
    stored = stored_values(latest(tmp_path / "run"))
    name = next(name for name in expected if not name.endswith("table"))
    assert torch.equal(stored[f"dense/{name}/average"].flatten().float(), whole["average"][name].flatten())

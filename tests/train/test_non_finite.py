"""A loss that is not finite: what is reported, and that a step that is left out changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.spawn import run_ranks
from tests.train.small_run import global_batch, join, small_config, small_step, whole_weights
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.non_finite import NonFiniteError, NonFiniteWatch
from unigrf_dist.train.step import TrainStep

LENGTHS = [5, 3, 4, 6]
POISONED_ITEM = 7


def train(policy: str, stage: int, poison: bool, run: str) -> dict[str, Any]:
    """Three steps on this rank's users; in the second one, one of rank 0's items has a vector of NaN."""
    retrieval = {"negatives": "in_batch"}  # no loss sees an item that is not in its batch
    config = small_config(
        stage, objective__retrieval=retrieval, train__on_non_finite=policy, train__max_skipped_steps=1
    )
    step: TrainStep = small_step(config)
    parts = SimpleNamespace(
        config=config,
        table=step.table,
        engine=step.engine,
        runtime=SimpleNamespace(rank=dist.get_rank()),
    )
    state, warnings = TrainState(), []
    watch = NonFiniteWatch(Path(run), parts, state, warn=warnings.append)  # type: ignore[arg-type]
    half, error = 2 * dist.get_rank(), ""
    try:
        for number in range(3):
            users = global_batch(number, LENGTHS)[half : half + 2]
            batch = join(users)
            # Away from the item, but where it is wanted.
            batch.item_ids[batch.item_ids == POISONED_ITEM] += 1
            if number == 1 and dist.get_rank() == 0:
                batch.item_ids[0] = POISONED_ITEM
            if poison and number == 1:
                _poison(step)
            watch.note(number, batch, step(batch, number))
            if poison and number == 1:
                watch.settle()
                _heal(step)
        watch.settle()
    except NonFiniteError as raised:
        error = str(raised)
    return {"error": error, "warnings": warnings, "skipped": state.skipped, "weights": whole_weights(step)}


def _poison(step: TrainStep) -> None:
    _set(step, float("nan"))


def _heal(step: TrainStep) -> None:
    _set(step, 0.0)


def _set(step: TrainStep, value: float) -> None:
    for shard in step.table.shards():
        row = POISONED_ITEM - shard.row_offset
        if 0 <= row < len(shard.weight):
            shard.weight[row] = value


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_step_that_is_left_out_changes_no_weight(stage: int, tmp_path: Path) -> None:
    first, second = run_ranks(2, train, "skip", stage, True, str(tmp_path))
    assert first["error"] == second["error"] == ""
    assert first["skipped"] == second["skipped"] == 1
    assert "step 1 left out, not finite: loss_retrieval = nan" in first["warnings"][0]
    for value in first["weights"].values():
        assert torch.isfinite(value).all()
    report = json.loads((tmp_path / "non_finite" / "step-00000001-rank-00000.json").read_text())
    assert report["arises_on_this_rank"]
    assert report["users"] == [0, 1]
    assert POISONED_ITEM in report["items"]
    other = json.loads((tmp_path / "non_finite" / "step-00000001-rank-00001.json").read_text())
    assert not other["arises_on_this_rank"]
    assert other["users"] == [2, 3]
    (named,) = [
        each for each in report["parameters"] + other["parameters"] if each["name"] == "tables/item/weight"
    ]
    assert named["first_rows"] == [POISONED_ITEM]


def test_without_leave_the_run_ends_on_every_rank_and_says_where(tmp_path: Path) -> None:
    for outcome in run_ranks(2, train, "stop", 2, True, str(tmp_path)):
        assert outcome["error"].startswith("step 1: not finite: loss_retrieval = nan")
        assert str(tmp_path / "non_finite") in outcome["error"]
    assert all(not each["error"] for each in run_ranks(2, train, "stop", 2, False, str(tmp_path)))

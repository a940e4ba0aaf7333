"""Checkpoints: bit-equal continuation, other numbers of ranks, and what can go wrong."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.spawn import run_ranks
from tests.train.small_run import global_batch, join, small_config, small_step, whole_weights
from unigrf_dist.errors import UserError

LENGTHS = [9, 1, 13, 0, 4, 2, 7, 3]


def advance(step: Any, first: int, last: int) -> None:
    """Train on the global batches ``first:last``; users are dealt out to the ranks in turn."""
    import torch.distributed as dist

    for number in range(first, last):
        users = global_batch(number, LENGTHS)
        step(join(users[dist.get_rank() :: dist.get_world_size()]), number)


def dealt_step(config: Any) -> Any:
    import torch.distributed as dist

    from unigrf_dist.ranks.runtime import start

    start(60)
    return small_step(config, torch.arange(dist.get_rank(), len(LENGTHS), dist.get_world_size()))


def train_and_save(run: Path, config: Any, save_after: int, steps: int) -> dict[str, torch.Tensor]:
    from unigrf_dist.train.checkpoint import Checkpoints, TrainState

    step = dealt_step(config)
    checkpoints = Checkpoints(run, step.engine, step.table, step.candidates, keep=1)
    advance(step, 0, save_after)
    state = TrainState(step=save_after, epoch=2, step_in_epoch=1, weighter=step.weighter.state_dict())
    checkpoints.note_schedule(state)
    checkpoints.save(state)
    advance(step, save_after, steps)
    return whole_weights(step)


def load_and_train(run: Path, config: Any, steps: int) -> dict[str, torch.Tensor]:
    from unigrf_dist.train.checkpoint import Checkpoints

    step = dealt_step(config)
    state = Checkpoints(run, step.engine, step.table, step.candidates, keep=1).load("latest")
    step.weighter.load_state_dict(state.weighter)
    assert (state.epoch, state.step_in_epoch) == (2, 1)
    advance(step, state.step, steps)
    return whole_weights(step)


BALANCE = {"warmup_steps": 1, "smoothing": 0.5, "window_steps": 2}
ENHANCER = {"candidates": 5, "hard_negatives": 2, "soft_positives": 2, "threshold": 0.5, "warmup_epochs": 1}
SCHEDULE = {"type": "WarmupLR", "params": {"warmup_num_steps": 6, "warmup_max_lr": 1e-2, "warmup_type": "linear"}}


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (0, {"model__dropout": 0.3}),
        (1, {"tables__optimizer": "rowwise_adagrad"}),
        (2, {"model__dropout": 0.3, "deepspeed__scheduler": SCHEDULE}),
        (3, {"model__dropout": 0.3}),
        (2, {"deepspeed__bf16": {"enabled": True}}),
        (3, {"deepspeed__bf16": {"enabled": True}}),
        (2, {"objective__enhancer": ENHANCER, "objective__weighter": {"strategy": "gradient", **BALANCE}}),
        (3, {"model__backbone": "llama", "objective__weighter": {"strategy": "descent_rate", **BALANCE}}),
        (1, {"objective__weighter": {"strategy": "uncertainty", **BALANCE}}),
    ],
    ids=[
        "zero0",
        "zero1-adagrad",
        "zero2-schedule",
        "zero3",
        "zero2-bf16",
        "zero3-bf16",
        "enhancer-gradient",
        "llama-descent-rate",
        "uncertainty",
    ],
)
def test_a_resumed_run_is_bit_equal_to_one_that_never_stopped(tmp_path: Path, stage: int, changes: dict) -> None:
    config = small_config(stage, **changes)
    through = run_ranks(2, train_and_save, tmp_path, config, 3, 6)
    resumed = run_ranks(2, load_and_train, tmp_path, config, 6)
    for before, after in zip(through, resumed, strict=True):
        for name, value in before.items():
            assert torch.equal(after[name], value), name


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(tmp_path: Path, ranks: int) -> None:
    through = run_ranks(2, train_and_save, tmp_path, small_config(2), 3, 6)
    for weights in run_ranks(ranks, load_and_train, tmp_path, small_config(3), 6):
        for name, value in through[0].items():
            assert (weights[name] - value).abs().max() < 1e-5, name


def save_as_earlier_versions(run: Path, config: Any) -> torch.Tensor:
    """Train and save with the candidates under the name they once had; returns them."""
    from unigrf_dist.train import checkpoint
    from unigrf_dist.train.checkpoint import Checkpoints, TrainState

    save = checkpoint.dcp.save

    def renamed(tensors: dict[str, Any], **options: Any) -> Any:
        return save({**tensors, "proposals": tensors.pop("candidates")}, **options)

    checkpoint.dcp.save = renamed
    step = dealt_step(config)
    advance(step, 0, 2)
    Checkpoints(run, step.engine, step.table, step.candidates, keep=1).save(TrainState(step=2))
    return step.candidates.state()["items"]


def loaded_candidates(run: Path, config: Any) -> torch.Tensor:
    from unigrf_dist.train.checkpoint import Checkpoints

    step = dealt_step(config)
    Checkpoints(run, step.engine, step.table, step.candidates, keep=1).load("latest")
    return step.candidates.state()["items"]


def test_candidates_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    config = small_config(objective__enhancer=ENHANCER)
    (saved,) = run_ranks(1, save_as_earlier_versions, tmp_path, config)
    (loaded,) = run_ranks(1, loaded_candidates, tmp_path, config)
    assert (saved >= 0).any()
    assert torch.equal(loaded, saved)


def save_many(run: Path) -> list[str]:
    from unigrf_dist.train.checkpoint import Checkpoints, TrainState

    step = small_step(small_config())
    checkpoints = Checkpoints(run, step.engine, step.table, keep=2)
    for number in range(1, 6):
        checkpoints.save(TrainState(step=number), best=number == 2)
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def test_the_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    (names,) = run_ranks(1, save_many, tmp_path)
    assert names == ["best", "latest", "step-00000002", "step-00000004", "step-00000005"]
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000002\n"


def load_message(run: Path, config: Any, name: str = "latest", catalogue: str = "") -> str:
    from unigrf_dist.train.checkpoint import Checkpoints

    step = small_step(config)
    try:
        Checkpoints(run, step.engine, step.table, keep=1, catalogue=catalogue).load(name)
    except UserError as error:
        return str(error)
    return ""


def test_what_can_not_be_loaded_is_told_in_one_line(tmp_path: Path) -> None:
    run_ranks(1, train_and_save, tmp_path, small_config(), 1, 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    (other_size,) = run_ranks(1, load_message, tmp_path, small_config(model__blocks=3))
    assert "checkpoint of another model: backbone.blocks.2." in other_size
    (other_items,) = run_ranks(1, load_message, tmp_path, small_config(), "latest", "of other items")
    assert "checkpoint of other data" in other_items
    (other_width,) = run_ranks(1, load_message, tmp_path, small_config(model__width=16))
    assert "its item table is [83, 12], the configuration and data give [83, 16]" in other_width
    (absent,) = run_ranks(1, load_message, tmp_path, small_config(), "step-00000009")
    assert "no such checkpoint; there are: step-00000001" in absent
    data = next(folder.glob("*.distcp"))
    data.write_bytes(data.read_bytes()[:100])
    (damaged,) = run_ranks(1, load_message, tmp_path, small_config())
    assert "the checkpoint is damaged" in damaged
    (folder / "state.json").write_text("{")
    (unreadable,) = run_ranks(1, load_message, tmp_path, small_config())
    assert "state.json: can't be read" in unreadable
    for message in (other_size, other_width, absent, damaged, unreadable):
        assert "\n" not in message


def save_on_full_disk(run: Path, where: str) -> list[str]:
    import torch.distributed as dist
    from torch.distributed.checkpoint import filesystem

    from unigrf_dist.train import checkpoint
    from unigrf_dist.train.checkpoint import Checkpoints, TrainState

    step = small_step(small_config())
    checkpoints = Checkpoints(run, step.engine, step.table, keep=1)
    checkpoints.save(TrainState(step=1))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "tensors" and dist.get_rank() == 1:
        filesystem._write_item = full  # type: ignore[assignment]
    if where == "state":
        checkpoint._publish = full
    advance(step, 0, 1)
    try:
        checkpoints.save(TrainState(step=2))
    except UserError as error:
        return [str(error), *sorted(p.name for p in (run / "checkpoints").iterdir())]
    return []


@pytest.mark.parametrize("where", ["tensors", "state"])
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_half_one(tmp_path: Path, where: str) -> None:
    for message, *left in run_ranks(2, save_on_full_disk, tmp_path, where):
        assert "step-00000002: the checkpoint could not be saved" in message
        assert "No space left on device" in message
        assert left == ["latest", "step-00000001"]
    state = json.loads((tmp_path / "checkpoints" / "step-00000001" / "state.json").read_text())
    assert state["train"]["step"] == 1

"""A save that is written while training goes on: what it holds, when it counts, and what a failure leaves."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import torch

from tests.spawn import run_ranks
from tests.train.small_run import global_batch, join, small_config, small_step
from tests.train.stored import latest, stored_state, stored_values
from unigrf_dist.errors import UserError

LENGTHS = [3, 5, 2, 4, 1, 6, 2, 3]


def advance(step: Any, first: int, number: int) -> None:
    import torch.distributed as dist

    share = len(LENGTHS) // dist.get_world_size()
    for index in range(first, first + number):
        users = global_batch(index, LENGTHS)[share * dist.get_rank() :][:share]
        step(join(users), index)


def save_both_ways(run: Path) -> list[bool]:
    """The state after two steps, written at once and written aside during three more; whether it counted early."""
    import torch.distributed as dist

    from unigrf_dist.train.checkpoints import checkpoints as module
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    step = small_step(small_config(stage=2))
    advance(step, 0, 2)
    Checkpoints(run / "at-once", step.engine, step.table, keep=1).save(TrainState(step=2, epoch=7))
    gate, write = threading.Event(), module.write_blocks

    def write_later(*arguments: Any) -> Any:
        gate.wait(60)
        return write(*arguments)

    module.write_blocks = write_later  # type: ignore[assignment]
    aside = Checkpoints(run / "aside", step.engine, step.table, keep=1)
    state = TrainState(step=2, epoch=7)
    aside.begin_save(state)
    state.step, state.epoch = 5, 8
    advance(step, 2, 3)
    seen = [aside.unwritten, aside.folders.has("latest")]
    gate.set()
    aside.complete()
    dist.barrier()
    return [*seen, aside.unwritten, aside.saving, aside.folders.has("latest")]


def test_it_holds_the_state_of_its_moment_and_counts_when_all_ranks_have_written(tmp_path: Path) -> None:
    for seen in run_ranks(2, save_both_ways, tmp_path):
        assert seen == [True, False, False, False, True]
    at_once, aside = latest(tmp_path / "at-once"), latest(tmp_path / "aside")
    assert stored_state(at_once) == stored_state(aside)
    assert stored_state(aside)["epoch"] == 7
    expected = stored_values(at_once)
    assert len(expected) > 10
    for name, value in stored_values(aside).items():
        assert torch.equal(value, expected[name]), name


def save_twice_with_a_failure(run: Path) -> list[str]:
    """A save that one rank can not write, then one that all can; what each was told."""
    import torch.distributed as dist

    from unigrf_dist.train.checkpoints import checkpoints as module
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    step, write = small_step(small_config(stage=2)), module.write_blocks
    saved = Checkpoints(run, step.engine, step.table, keep=1)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if dist.get_rank() == 1:
        module.write_blocks = full  # type: ignore[assignment]
    saved.begin_save(TrainState(step=1))
    try:
        saved.complete()
        told = ""
    except UserError as error:
        told = str(error)
    module.write_blocks = write
    # The second one begins only when the first is out of the way.
    saved.begin_save(TrainState(step=2))
    saved.begin_save(TrainState(step=3))
    saved.complete()
    saved.wait_for_pruning()
    dist.barrier()
    return [told, *sorted(path.name for path in (run / "checkpoints").iterdir())]


def test_a_failure_is_told_on_every_rank_and_the_next_save_succeeds(tmp_path: Path) -> None:
    for told, *left in run_ranks(2, save_twice_with_a_failure, tmp_path):
        assert "step-00000001: the checkpoint could not be saved: No space left on device" in told
        assert left == ["latest", "step-00000003"]

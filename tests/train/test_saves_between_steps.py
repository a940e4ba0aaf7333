"""When the loop saves: aside, without waiting for the disk, and once for each time that it is due."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

from tests.spawn import run_ranks
from tests.train.small_run import small_config
from unigrf_dist.synthetic import synthesize

STEPS_PER_EPOCH = 5


def trainer(folder: Path, **changes: Any) -> Any:
    """A run of four epochs of five steps."""
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.loop import Trainer

    config = small_config(data__path=str(folder / "data"), train__epochs=4, **changes)
    (folder / "run").mkdir()
    return Trainer(build_parts(config, start(60)), folder / "run", resume=False)


def steps_during_writes(folder: Path) -> list[bool]:
    """Whether two more steps were done while a checkpoint was written, for the first one."""
    from unigrf_dist.train.checkpoints import checkpoints as module

    training = trainer(folder, train__checkpoint_every="2 steps", train__selection={"every": "4 epochs"})
    step, write, went_on = training.step, module.write_blocks, threading.Event()
    seen: list[bool] = []

    def count(*arguments: Any, **options: Any) -> Any:
        outcome = step(*arguments, **options)
        if training.state.step + 1 >= 4:
            went_on.set()
        return outcome

    def write_slowly(*arguments: Any) -> Any:
        seen.append(went_on.wait(5))
        return write(*arguments)

    # What the loop asks of the step besides calling it stays the step's.
    count.__dict__.update(vars(step), learning_rate=step.learning_rate)
    training.step, module.write_blocks = count, write_slowly  # type: ignore[assignment]
    training.run()
    return seen[:1]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    synthesize(tmp_path / "data", num_users=40, num_items=60, mean_length=8)
    assert run_ranks(1, steps_during_writes, tmp_path) == [[True]]


def steps_of_saves_and_validations(folder: Path) -> tuple[list[int], list[int]]:
    """Steps after which it saved and validated, where a minute of either clock is three steps."""
    from unigrf_dist.train.clock import Clock

    training = trainer(folder, train__checkpoint_every="1 minute", train__selection={"every": "1 minute"})
    saves: list[int] = []
    validations: list[int] = []

    def now() -> float:
        return 21.0 * training.state.step

    training._save_clock, training._validate_clock = Clock(1, now), Clock(1, now)
    begin, validation = training.checkpoints.begin_save, training.reporter.validation

    def begin_save(state: Any, **options: Any) -> None:
        saves.append(state.step)
        begin(state, **options)

    def report(step: int, *arguments: Any, **options: Any) -> None:
        validations.append(step)
        validation(step, *arguments, **options)

    training.checkpoints.begin_save, training.reporter.validation = begin_save, report
    training.run()
    return saves, validations


def test_by_the_clock_it_saves_and_validates_once_each_time(tmp_path: Path) -> None:
    synthesize(tmp_path / "data", num_users=40, num_items=60, mean_length=8)
    ((saves, validations),) = run_ranks(1, steps_of_saves_and_validations, tmp_path)
    assert len(validations) >= 3
    for steps in (saves[:-1], validations[:-1]):  # the last ones are those of the end
        assert all(later - earlier >= 3 for earlier, later in itertools.pairwise(steps)), steps

"""Where faults are done to trainings: the small run, what it should come to, and the run that is under way."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unigrf_dist.chaos.training import CHECKPOINT_STEPS, STEPS, Training, last_words
from unigrf_dist.chaos.weights import Matrices, is_equal, largest_difference, weights_at
from unigrf_dist.errors import UserError
from unigrf_dist.train.checkpoints.folders import LATEST, CheckpointFolders

REFERENCE = "reference"
# Runs on other numbers of ranks add in another order.
ROUNDING = 1e-4
_SLOW_SECONDS = 300.0


@dataclass(frozen=True)
class Outcome:
    """What a fault came to.

    Attributes:
        fault: its name.
        as_promised: whether it is what is promised, however long it took.
        seconds: from the fault to the end that it caused.
        told: in words.
        promised_seconds: longest time promised, on a machine that is not busy with other work; None without one.
    """

    fault: str
    as_promised: bool
    seconds: float
    told: str
    promised_seconds: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it is what is promised, in time."""
        return self.as_promised and not self.late

    @property
    def late(self) -> bool:
        """Whether it took longer than promised."""
        return self.promised_seconds is not None and self.seconds > self.promised_seconds


@dataclass
class Workshop:
    """Where faults are done.

    Attributes:
        config: configuration of the small run.
        folder: folder for the runs.
        draws: draws steps and ranks.
        finished: runs that came to their end after the faults that were done to them.
    """

    config: Path
    folder: Path
    draws: random.Random
    _number: int = 0
    _under_way: Training | None = None
    finished: list[Outcome] = field(default_factory=list)

    def new_run(self) -> Path:
        self._number += 1
        return self.folder / f"run-{self._number:03d}"

    def train(self, run: Path, ranks: int, *options: str, within: Sequence[str] = ()) -> Training:
        return Training(self.config, run, ranks=ranks, options=options, within=within)

    def begun(self, *options: str) -> Training:
        """A new run on two ranks, somewhere in its first half."""
        training = self.train(self.new_run(), 2, *options)
        training.wait_for_step(self.draws.randint(1, STEPS // 2))
        return training

    def reference(self, name: str = LATEST) -> Matrices:
        """Weights, moments and candidates of a run that nothing happened to, on two ranks, at a checkpoint."""
        run = self.folder / REFERENCE
        if not run.exists():
            training = self.train(run, 2)
            if training.wait(_SLOW_SECONDS) != 0:
                raise RuntimeError(f"the undisturbed run failed: {training.said()[-2000:]}")
        return weights_at(run, name)

    def under_way(self) -> Training:
        """The run on two ranks that one fault after another is done to; a new one where it is near its end."""
        self.reference()
        if self._under_way is None or self._under_way.steps > STEPS - 5 * CHECKPOINT_STEPS:
            self.finish()
            self._under_way = self.train(self.new_run(), 2)
        self._under_way.wait_for_step(self._under_way.steps + self.draws.randint(1, CHECKPOINT_STEPS))
        return self._under_way

    def resumed(self, run: Path, ranks: int) -> tuple[Training, str]:
        """Go on with a run up to its next checkpoint, by then in new hands; its name."""
        before = latest_of(run)
        training = self.train(run, ranks, *resume(run))
        deadline = time.monotonic() + _SLOW_SECONDS
        while (name := latest_of(run)) == before:
            if time.monotonic() > deadline or training.process.poll() not in (None, 0):
                training.kill_all()
                raise RuntimeError(f"the resume failed: {last_words(training)}")
            time.sleep(0.02)
        return training, name

    def resumed_equal(self, fault: str, run: Path, seconds: float) -> Outcome:
        """Go on with a run on two ranks; compare its next checkpoint bit by bit with the undisturbed run's."""
        try:
            self._under_way, name = self.resumed(run, 2)
        except RuntimeError as error:
            self._under_way = None
            return Outcome(fault, False, seconds, str(error))
        equal = is_equal(self.reference(name), weights_at(run, name))
        told = f"resumed, {'bit-equal' if equal else 'but to other weights'} at {name}"
        return Outcome(fault, equal, seconds, told)

    def difference(self, run: Path, name: str = LATEST) -> float:
        """Largest difference of a weight between a run's checkpoint and the undisturbed run's of that step."""
        name = latest_of(run) if name == LATEST else name
        return largest_difference(self.reference(name), weights_at(run, name))

    def finish(self) -> None:
        """Let the run under way, if any, come to its end, and compare it with the undisturbed one."""
        training, self._under_way = self._under_way, None
        if training is None:
            return
        began = time.monotonic()
        status = training.wait(_SLOW_SECONDS)
        equal = status == 0 and is_equal(self.reference(), weights_at(training.run))
        told = "at its end bit-equal" if equal else f"status {status}: {last_words(training)}"
        self.finished.append(Outcome("a run after all of its kills", equal, time.monotonic() - began, told))


def resume(run: Path) -> list[str]:
    """Options to go on with a run, or to begin it where it has come to nothing yet."""
    return ["--resume"] if (run / "config.yaml").exists() else []


def latest_of(run: Path) -> str:
    """Name of a run's latest checkpoint; empty without one."""
    try:
        return CheckpointFolders(run).resolve(LATEST).name
    except UserError:
        return ""

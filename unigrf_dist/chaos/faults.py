"""The faults, each done once to a small training; what it came to, and how long it took."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from unigrf_dist.chaos.training import CHECKPOINT_STEPS, STEPS, Training, log_of
from unigrf_dist.chaos.weights import Matrices, final_weights, is_equal, largest_difference

_STOPPED = 130
_TIMEOUT_SECONDS = 30
# Runs on other numbers of ranks add in another order.
_ROUNDING = 1e-4
_RESUME = ["--resume"]


@dataclass(frozen=True)
class Outcome:
    """What a fault came to.

    Attributes:
        fault: its name.
        passed: whether it is as it should be.
        seconds: from the fault to the end that it caused.
        told: in words.
    """

    fault: str
    passed: bool
    seconds: float
    told: str


@dataclass
class Workshop:
    """Where faults are done.

    Attributes:
        config: configuration of the small run.
        folder: folder for the runs.
        draws: draws steps and ranks.
    """

    config: Path
    folder: Path
    draws: random.Random
    _number: int = 0
    _references: dict[int, Matrices] = field(default_factory=dict)

    def new_run(self) -> Path:
        self._number += 1
        return self.folder / f"run-{self._number:03d}"

    def train(self, run: Path, ranks: int, *options: str) -> Training:
        return Training(self.config, run, ranks=ranks, options=options)

    def reference(self, ranks: int) -> Matrices:
        """The weights of a run that nothing happened to."""
        if ranks not in self._references:
            run = self.folder / f"reference-{ranks}"
            training = self.train(run, ranks)
            if training.wait() != 0:
                raise RuntimeError(f"the undisturbed run failed: {training.said()[-2000:]}")
            self._references[ranks] = final_weights(run)
        return self._references[ranks]

    def some_step(self) -> int:
        return self.draws.randint(1, STEPS // 2)

    def begun(self, *options: str) -> Training:
        """A new run on two ranks, somewhere in its first half."""
        training = self.train(self.new_run(), 2, *options)
        training.wait_for_step(self.some_step())
        return training


def kill_rank(work: Workshop) -> Outcome:
    """SIGKILL to one of two ranks: the other ends at once and names it; a resume is bit-equal."""
    training = work.begun()
    began = time.monotonic()
    work.draws.choice(training.ranks()).kill()
    training.wait(60)
    return _resumed_equal("kill one rank", work, training.run, 2, time.monotonic() - began)


def kill_all(work: Workshop) -> Outcome:
    """SIGKILL to command, launcher and ranks at once; a resume is bit-equal."""
    training = work.begun()
    began = time.monotonic()
    training.kill_all()
    return _resumed_equal("kill everything", work, training.run, 2, time.monotonic() - began)


def kill_while_saving(work: Workshop) -> Outcome:
    """SIGKILL to everything while a checkpoint is written; a resume is bit-equal."""
    training = work.begun()
    began = time.monotonic()
    while training.process.poll() is None and not list((training.run / "checkpoints").glob("*.partial")):
        time.sleep(0.001)
    training.kill_all()
    return _resumed_equal("kill while saving", work, training.run, 2, time.monotonic() - began)


def kill_launcher(work: Workshop) -> Outcome:
    """SIGKILL to the command alone: its ranks end with it, and a resume is bit-equal."""
    training = work.begun()
    ranks, began = training.ranks(), time.monotonic()
    training.process.kill()
    training.process.wait()
    while any(rank.is_running() for rank in ranks) and time.monotonic() - began < 30:
        time.sleep(0.05)
    seconds = time.monotonic() - began
    if any(rank.is_running() for rank in ranks):
        return Outcome("kill the launcher", False, seconds, "its ranks train on")
    return _resumed_equal("kill the launcher", work, training.run, 2, seconds)


def change_ranks(work: Workshop) -> Outcome:
    """Kills, each followed by a resume on another number of ranks: 2, 1, 4, 3; every user once per epoch."""
    run, name = work.new_run(), "kills on 2, 1, 4, 3 ranks"
    began, share = time.monotonic(), STEPS // 4
    for part, ranks in enumerate((2, 1, 4)):
        training = work.train(run, ranks, *(_RESUME if part else []))
        training.wait_for_step(share * part + work.draws.randint(2, share))
        training.kill_all()
    training = work.train(run, 3, *(_RESUME if (run / "config.yaml").exists() else []))
    if training.wait() != 0:
        return Outcome(name, False, time.monotonic() - began, _last_words(training))
    difference = largest_difference(work.reference(2), final_weights(run))
    told = f"every user once per epoch: weights differ by {difference:.1e} from an undisturbed run"
    return Outcome(name, difference < _ROUNDING, time.monotonic() - began, told)


def stop_rank(work: Workshop) -> Outcome:
    """SIGSTOP to a rank: within the timeout plus 10 s the run ends, and says who is missing."""
    name = "stop one rank (SIGSTOP)"
    training = work.begun("--set", f"train.timeout_seconds={_TIMEOUT_SECONDS}")
    missing, began = work.draws.choice([0, 1]), time.monotonic()
    training.ranks()[missing].suspend()
    status, seconds = training.wait(_TIMEOUT_SECONDS + 40), time.monotonic() - began
    named = [line for line in training.errors() if f"rank {missing}" in line.split("error: ")[-1]]
    stacks = list((training.run / "stacks").glob("rank-*.txt"))
    passed = status != 0 and bool(named) and bool(stacks) and seconds <= _TIMEOUT_SECONDS + 10
    return Outcome(name, passed, seconds, named[0] if named else _last_words(training))


def interrupt(work: Workshop) -> Outcome:
    """Ctrl-C: one line, saved, status 130; a resume is bit-equal."""
    training, name = work.begun(), "Ctrl-C"
    began = time.monotonic()
    training.signal(signal.SIGINT)
    status, seconds = training.wait(60), time.monotonic() - began
    if status != _STOPPED or training.errors() or "asked to stop: saved" not in training.said():
        return Outcome(name, False, seconds, f"status {status}: {_last_words(training)}")
    return _resumed_equal(name, work, training.run, 2, seconds)


def interrupt_twice(work: Workshop) -> Outcome:
    """Ctrl-C twice: ends at once with status 130."""
    training, name = work.begun(), "Ctrl-C twice"
    began = time.monotonic()
    for rank in training.ranks():
        rank.suspend()  # so that the first one can't be heeded
    training.signal(signal.SIGINT)
    time.sleep(0.3)
    training.signal(signal.SIGINT)
    status, seconds = training.wait(30), time.monotonic() - began
    return Outcome(name, status == _STOPPED and seconds < 5, seconds, f"status {status}")


def unwritable_folder(work: Workshop) -> Outcome:
    """The folder of the checkpoints can't be written: training goes on, with a warning for each attempt."""
    run, name = work.new_run(), "no room for checkpoints"
    training = work.train(run, 2)
    training.wait_for_step(CHECKPOINT_STEPS + 2)
    checkpoints, aside = run / "checkpoints", run / "aside"
    while not (checkpoints / "latest").exists() and training.process.poll() is None:
        time.sleep(0.01)
    began = time.monotonic()
    # For root nothing is read-only: a file where the folder was refuses every write.
    checkpoints.rename(aside)
    checkpoints.write_text("")
    training.wait_for_step(3 * CHECKPOINT_STEPS)
    checkpoints.unlink()
    for made in aside.glob("*.partial"):
        shutil.rmtree(made)
    aside.rename(checkpoints)
    status, seconds = training.wait(), time.monotonic() - began
    warned = [record for record in log_of(run) if record["kind"] == "warning"]
    passed = status == 0 and bool(warned) and is_equal(work.reference(2), final_weights(run))
    return Outcome(name, passed, seconds, warned[0]["text"] if warned else _last_words(training))


def restart_elastic(work: Workshop) -> Outcome:
    """A rank is lost under --max-restarts --elastic: the run goes on by itself on the one that is left."""
    run, name = work.new_run(), "lose a rank, --elastic"
    training = work.train(run, 2, "--max-restarts", "1", "--elastic")
    training.wait_for_step(work.draws.randint(8, STEPS // 2))
    at, began = training.steps, time.monotonic()
    training.ranks()[1].kill()
    headers = len([record for record in log_of(run) if record["kind"] == "header"])
    while training.process.poll() is None and not _trains_again(run, headers):
        time.sleep(0.05)
    seconds, status = time.monotonic() - began, training.wait()
    difference = largest_difference(work.reference(2), final_weights(run)) if status == 0 else float("inf")
    told = f"killed after step {at}, trained again after {seconds:.0f} s; weights differ by {difference:.1e}"
    return Outcome(name, difference < _ROUNDING, seconds, told if status == 0 else _last_words(training))


FAULTS: dict[str, Callable[[Workshop], Outcome]] = {
    "kill-rank": kill_rank,
    "kill-all": kill_all,
    "kill-while-saving": kill_while_saving,
    "kill-launcher": kill_launcher,
    "change-ranks": change_ranks,
    "stop-rank": stop_rank,
    "interrupt": interrupt,
    "interrupt-twice": interrupt_twice,
    "unwritable": unwritable_folder,
    "elastic": restart_elastic,
}


def _resumed_equal(name: str, work: Workshop, run: Path, ranks: int, seconds: float) -> Outcome:
    """Go on with a run and compare it with one that nothing happened to."""
    resume = _RESUME if (run / "config.yaml").exists() else []
    training = work.train(run, ranks, *resume)
    if training.wait() != 0:
        return Outcome(name, False, seconds, f"the resume failed: {_last_words(training)}")
    equal = is_equal(work.reference(ranks), final_weights(run))
    return Outcome(name, equal, seconds, "resumed, bit-equal" if equal else "resumed, but to other weights")


def _trains_again(run: Path, headers: int) -> bool:
    kinds = [record["kind"] for record in log_of(run)]
    starts = [index for index, kind in enumerate(kinds) if kind == "header"]
    return len(starts) > headers and "step" in kinds[starts[-1] :]


def _last_words(training: Training) -> str:
    lines = training.errors() or training.said().splitlines() or ["nothing"]
    return lines[-1][:200]

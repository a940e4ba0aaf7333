"""Runs the trials of a study as children of this process: one after another, or several side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from unigrf_dist.study.plan import Trial
from unigrf_dist.study.run_state import STUDY_LOG_FILE, Stage, Times, clear_unstarted, read_times, stage
from unigrf_dist.study.watch import Watch

UNIGRF = (sys.executable, "-m", "unigrf_dist")
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error.

    Attributes:
        trial: the run.
        reason: last error of its log.
        log: file of the whole log.
    """

    trial: Trial
    reason: str
    log: Path


@dataclass
class Outcome:
    """How running a study's trials ended.

    Attributes:
        failures: runs that ended with an error.
        interrupted: whether the study was asked to stop before the end.
    """

    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False


class Job:
    """A running trial: its current child process, and which stage the child runs.

    Args:
        trial: trial to run, not done yet.
        program: the `unigrf` command.
        ranks: processes of the run.
        environment: environment variables of the children.
    """

    def __init__(self, trial: Trial, program: Sequence[str], ranks: int, environment: dict[str, str]) -> None:
        self.trial, self.program, self.ranks, self.environment = trial, program, ranks, environment
        self.log = trial.folder / STUDY_LOG_FILE
        self._start(stage(trial))

    def ended(self) -> int | None:
        """Exit status once nothing is left to do for this trial, or a child failed; None before."""
        status = self._child.poll()
        if status is None:
            return None
        self.kill()  # what may be left of the child's own children
        self._note(status)
        following = stage(self.trial)
        if status == 0 and following is Stage.EVALUATE and self.stage is not Stage.EVALUATE:
            self._start(following)
            return None
        # A child that says all went well, but left no metrics, must not be started for ever.
        return status or (0 if following is Stage.DONE else 1)

    def alive(self) -> bool:
        """Whether its child runs."""
        return self._child.poll() is None

    def stop(self) -> None:
        """Ask for a clean end: training saves first."""
        self._child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child and its own children at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the end of a stopped child, and note its time."""
        status = self._child.wait()
        self.kill()
        self._note(status)

    def _start(self, what: Stage) -> None:
        self.stage = what
        if what is Stage.TRAIN:
            clear_unstarted(self.trial)
        self.trial.folder.mkdir(parents=True, exist_ok=True)
        command = [*self.program, *self._arguments(what)]
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            # In a session of its own: Ctrl-C reaches only this process, which then stops all children alike.
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        self._since = time.monotonic()

    def _arguments(self, what: Stage) -> list[str]:
        run = ["--run", str(self.trial.folder), "--ranks", str(self.ranks)]
        if what is Stage.EVALUATE:
            return ["evaluate", *run, "--split", "test", "--checkpoint", "best"]
        words = [word for override in self.trial.overrides for word in ("--set", override)]
        return ["train", "--config", str(self.trial.base), *run, *words, *["--resume"] * (what is Stage.RESUME)]

    def _note(self, status: int) -> None:
        times = Times() if self.stage is Stage.TRAIN else read_times(self.trial.folder)
        seconds = time.monotonic() - self._since
        if self.stage is Stage.EVALUATE:
            times.evaluate_seconds = seconds
        else:
            times.train_seconds += seconds
            times.trained = status == 0
        times.write(self.trial.folder)


def run_trials(
    trials: Sequence[Trial], *, ranks: int, parallel: int, watch: Watch, program: Sequence[str] | None = None
) -> Outcome:
    """Run what is not done yet. Ctrl-C or SIGTERM stops the children, which save; a second one kills them.

    Args:
        trials: trials of the study, in order.
        ranks: processes of each run.
        parallel: number of runs side by side.
        watch: display that is told what happens.
        program: the `unigrf` command, if it is not this one.
    """
    waiting = deque(trial for trial in trials if stage(trial) is not Stage.DONE)
    watch.begin(total=len(trials), done=len(trials) - len(waiting))
    running: dict[int, Job] = {}
    outcome = Outcome()
    with _stop_signals() as asked, watch:
        while (waiting or running) and not asked:
            for slot in range(parallel):
                if slot not in running and waiting:
                    environment = _environment(slot, ranks, parallel)
                    running[slot] = Job(waiting.popleft(), program or UNIGRF, ranks, environment)
                    watch.started(running[slot].trial)
            for slot, job in list(running.items()):
                status = job.ended()
                if status is not None:
                    del running[slot]
                    _note_end(job, status, outcome, watch)
            watch.tick()
            time.sleep(_POLL_SECONDS)
        outcome.interrupted = bool(asked)
        _stop_all(list(running.values()), asked, watch)
    return outcome


def _note_end(job: Job, status: int, outcome: Outcome, watch: Watch) -> None:
    if status:
        outcome.failures.append(Failure(job.trial, _last_error(job.log, status), job.log))
    watch.ended(job.trial, failed=bool(status))


def _stop_all(jobs: Sequence[Job], asked: list[int], watch: Watch) -> None:
    """Stop the children that still run; there are none when the study came to its end."""
    if not jobs:
        return
    watch.say(f"asked to stop: {len(jobs)} running, waiting until saved (again to kill)")
    for job in jobs:
        job.stop()
    while any(job.alive() for job in jobs):
        if len(asked) > 1:
            for job in jobs:
                job.kill()
        watch.tick()
        time.sleep(_POLL_SECONDS)
    for job in jobs:
        job.wait()


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that grows with every Ctrl-C or SIGTERM."""
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment(slot: int, ranks: int, parallel: int) -> dict[str, str]:
    """Runs side by side share cores, and spread over the GPUs if each needs only one."""
    environment = dict(os.environ)
    if parallel > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // (ranks * parallel))))
    if parallel > 1 and ranks == 1 and "CUDA_VISIBLE_DEVICES" not in environment:
        import torch

        if torch.cuda.device_count() > 1:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot % torch.cuda.device_count())
    return environment


def _last_error(log: Path, status: int) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    last = errors[-1] if errors else next((line for line in reversed(lines) if line), "")
    return last.removeprefix("error: ") or f"exit status {status}"

"""A small training in processes of its own, that faults are done to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from unigrf_dist.ranks.lost import children, ranks_below

NUM_USERS, BATCH_USERS, EPOCHS = 300, 64, 60
CHECKPOINT_STEPS = 10
STEPS = EPOCHS * -(-NUM_USERS // BATCH_USERS)
_START_SECONDS = 180.0
_CONFIG: dict[str, Any] = {
    "data": {"max_events": 20},
    "model": {"width": 16, "blocks": 1, "heads": 1, "head_width": 16, "dropout": 0.0},
    "objective": {
        "ranking": [{"rule": "rating >= 4"}],
        "weighter": {"strategy": "gradient", "warmup_steps": 4},
        "enhancer": {"candidates": 4, "hard_negatives": 2, "soft_positives": 1, "warmup_epochs": 1},
    },
    "train": {
        "epochs": EPOCHS,
        "global_batch_users": BATCH_USERS,
        "log_every_steps": 1,
        "checkpoint_every": f"{CHECKPOINT_STEPS} steps",
        # Any of them may be compared with that of another run.
        "keep_checkpoints": STEPS,
        "selection": {"every": f"{EPOCHS} epochs"},
    },
    "deepspeed": {
        "zero_optimization": {"stage": 2},
        "optimizer": {"type": "AdamW", "params": {"lr": 3e-3}},
    },
}


def make_workshop(folder: Path, *, seed: int) -> Path:
    """A planted data set and the configuration of a small run over it; the configuration's file."""
    from unigrf_dist.synthetic import synthesize

    folder.mkdir(parents=True, exist_ok=True)
    synthesize(folder / "data", num_users=NUM_USERS, num_items=120, mean_length=14, seed=seed, overwrite=True)
    values = {**_CONFIG, "data": {**_CONFIG["data"], "path": str((folder / "data").absolute())}}
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


class Training:
    """``unigrf train`` in a process of its own.

    Args:
        config: configuration file.
        run: the run's folder.
        ranks: processes.
        options: further options of the command.
        within: words before the command, which take it into a namespace.
    """

    def __init__(
        self, config: Path, run: Path, *, ranks: int, options: Sequence[str] = (), within: Sequence[str] = ()
    ) -> None:
        self.run = run
        command = [
            *within,
            sys.executable,
            "-m",
            "unigrf_dist",
            "train",
            "--config",
            str(config),
            "--run",
            str(run),
        ]
        self.output = run.with_suffix(f".{time.monotonic_ns()}.out")
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--ranks", str(ranks), *options], stdout=output, stderr=output, start_new_session=True
            )

    @property
    def steps(self) -> int:
        """Steps that the log tells of, of this attempt and those before."""
        return max((record["step"] for record in log_of(self.run) if record["kind"] == "step"), default=0)

    def wait_for_step(self, step: int) -> None:
        """Wait until ``step`` steps are done.

        Raises:
            RuntimeError: the training has ended before, or comes to no step.
        """
        deadline = time.monotonic() + _START_SECONDS
        while self.steps < step:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.run}: ended or hangs before step {step}: {self.said()[-1000:]}")
            time.sleep(0.02)

    def ranks(self) -> list[psutil.Process]:
        """The rank processes, in the order of their ranks."""
        found = ranks_below(self.process.pid)
        return sorted(found, key=lambda each: " ".join(each.cmdline())) or [psutil.Process(self.process.pid)]

    def kill_all(self) -> None:
        """SIGKILL to the command, the launcher and all ranks at once."""
        below = children(self.process.pid)
        self.process.kill()
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def wait(self, seconds: float = _START_SECONDS) -> int:
        """Exit status.

        Raises:
            TimeoutError: it runs on; it has been killed.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise TimeoutError(f"{self.run}: still running after {seconds:.0f} s") from None

    def said(self) -> str:
        """What it printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def errors(self) -> list[str]:
        """Lines with an error or a traceback's head."""
        return [line for line in self.said().splitlines() if "error: " in line or line.startswith("Traceback")]


def last_words(training: Training) -> str:
    """The last error that a training printed, or else its last line."""
    lines = training.errors() or training.said().splitlines() or ["nothing"]
    return lines[-1][:200]


def log_of(run: Path) -> list[dict[str, Any]]:
    """Whole lines of a run's log."""
    file = run / "log.jsonl"
    if not file.exists():
        return []
    records = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # cut off by a kill
            continue
    return records

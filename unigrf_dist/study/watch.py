"""What a study shows while it runs: which run of how many, how far it is, how long it will take."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from unigrf_dist.report.words import duration
from unigrf_dist.study.plan import Trial
from unigrf_dist.study.run_state import Stage, stage
from unigrf_dist.train.run_folder import LOG_FILE

_REFRESH_SECONDS = 1.0
# The last record of a training log is far shorter.
_TAIL_BYTES = 8192


class Watch:
    """A table that is drawn anew in place on a terminal; elsewhere a line when a run starts or ends.

    Args:
        console: console to draw on.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._running: dict[str, Trial] = {}
        self._begun = self._drawn = time.monotonic()
        self._live: Live | None = None

    def begin(self, *, total: int, done: int) -> None:
        """Before the first run: how many there are, and how many were done before."""
        self._total, self._done, self._before, self._failed = total, done, done, 0
        self.say(f"{total} runs, {done} of them done before")

    def __enter__(self) -> Watch:
        self._begun = time.monotonic()
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, trial: Trial) -> None:
        self._running[trial.name] = trial
        self.say(f"run {self._done + self._failed + len(self._running)} of {self._total}: {trial.name}")

    def ended(self, trial: Trial, *, failed: bool) -> None:
        del self._running[trial.name]
        self._failed += failed
        self._done += not failed
        self.say(f"{trial.name}: {'[red]failed[/]' if failed else 'done'}; {self._time()}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False)

    def tick(self) -> None:
        """Draw anew, if it is time."""
        now = time.monotonic()
        if self._live is not None and now - self._drawn >= _REFRESH_SECONDS:
            self._drawn = now
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        title = f"{self._done} of {self._total} runs done" + f", {self._failed} failed" * bool(self._failed)
        table = Table(title=title, caption=self._time(), box=None, padding=(0, 2), title_style="bold")
        for column in ("running", "stage", "losses"):
            table.add_column(column, header_style="dim")
        for trial in self._running.values():
            record = _last_record(trial.folder / LOG_FILE)
            table.add_row(escape(trial.name), _progress(trial, record), _losses(record))
        return table

    def _time(self) -> str:
        elapsed = time.monotonic() - self._begun
        share = sum(_share(trial, _last_record(trial.folder / LOG_FILE)) for trial in self._running.values())
        gained = self._done + self._failed - self._before + share
        text = f"elapsed {duration(elapsed)}"
        left = self._total - self._done - self._failed - share
        # A twentieth of a run, with its start-up, says too little about the others.
        return text + f", about {duration(elapsed * left / gained)} to go" if gained > 0.05 and left > 0 else text


def _progress(trial: Trial, record: dict) -> str:
    if stage(trial) is Stage.EVALUATE:
        return "evaluate"
    return f"train, epoch {record['epoch'] + 1} of {trial.config.train.epochs}" if record else "train"


def _share(trial: Trial, record: dict) -> float:
    """Share of the run that is done, 0 to 1."""
    return min(1.0, record.get("epoch", 0) / trial.config.train.epochs)


def _losses(record: dict) -> str:
    if "loss_retrieval" not in record:
        return ""
    return f"retrieval {record['loss_retrieval']:.3f}  ranking {record['loss_ranking']:.3f}"


def _last_record(log: Path) -> dict:
    """The last whole line of a step or validation; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:  # the first is cut off, the last may be being written
            continue
        if record.get("kind") == "step":
            return dict(record)
    return {}

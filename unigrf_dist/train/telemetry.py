"""What a run reports: progress bar, ``log.jsonl`` and TensorBoard. Only rank 0 reports.

This is the one place that moves a step's numbers to the host, every ``log_every_steps`` steps.
"""

from __future__ import annotations

import json
import shlex
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from unigrf_dist.evaluate.metric_names import MetricName, named_metrics
from unigrf_dist.objective.tasks import TASKS, by_task
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.run_folder import LOG_FILE
from unigrf_dist.train.step import StepOutcome

_UNBROKEN = "\N{NO-BREAK SPACE}"
_SHOWN = ("hr@10", "ndcg@10", "mrr", "auc")
# Facts that the start-up lines have told.
_TOLD_BEFORE = ("users", "items", "events", "resumed_at_step", "day")


class Reporter:
    """Writes the run's log and shows its progress; does nothing where ``active`` is false.

    Args:
        run: the run's folder; the log is appended to.
        total_steps: steps of the whole run.
        done_steps: steps done before a resume.
        selection: the metric that picks the best model.
        active: whether this is rank 0.
        tasks: tasks that are trained, which the terminal shows; the log has a value of each task.
    """

    def __init__(
        self,
        run: Path,
        *,
        total_steps: int,
        done_steps: int,
        selection: MetricName,
        active: bool,
        tasks: Sequence[str] = TASKS,
    ) -> None:
        self.active, self._tasks = active, tasks
        self._run, self._selection = run, selection
        self._since = time.perf_counter()
        self._told_of_loss = False
        if not active:
            return
        self.console = Console(highlight=False)
        self._log = (run / LOG_FILE).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run / "tensorboard"))
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]:>3}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            expand=True,
        )
        self._task = self._progress.add_task("train", total=total_steps, completed=done_steps, epoch=1)
        self._metrics = Text()
        self._live = Live(Group(self._progress, self._metrics), console=self.console, refresh_per_second=2)

    def header(self, *, epoch: int, validates: bool = True, **facts: Any) -> None:
        """What is trained, on what; the progress bar begins below it.

        Args:
            epoch: epoch of the next step, from 0.
            validates: whether validation picks the best model; else it is that of the last step.
            facts: facts about the run by name, as the log keeps them.
        """
        if not self.active:
            return
        self._write({"kind": "header", **facts, "selection": str(self._selection)})
        told = {name: value for name, value in facts.items() if name not in _TOLD_BEFORE}
        self.note("  ".join(f"{name.replace('_', ' ')} {_readable(value)}" for name, value in told.items()))
        picked = f"best model by {self._selection.described} on the validation events"
        self.note(picked if validates else "no validation: the model of the last step is the best")
        self._progress.update(self._task, epoch=epoch + 1)
        self._live.start()

    def step(self, step: int, epoch: int, outcome: StepOutcome, learning_rate: float, events: float) -> None:
        """Report step ``step``; ``events`` went through the model since the last report."""
        if not self.active:
            return
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        metrics = _step_metrics(outcome)
        metrics.update(lr=learning_rate, events_per_second=events / max(seconds, 1e-9), seconds=seconds)
        self._write({"kind": "step", "step": step, "epoch": epoch, **metrics})
        self._scalars(step, metrics)
        losses = (f"{task} {metrics[f'loss_{task}']:.3f} ×{metrics[f'weight_{task}']:.2f}" for task in self._tasks)
        self._metrics.plain = "  ".join(
            [f"loss {metrics['loss']:.3f}", *losses, f"{metrics['events_per_second']:,.0f} events/s"]
        )
        self._progress.update(self._task, completed=step, epoch=epoch + 1)

    def exact_norms(self, step: int, epoch: int, outcome: StepOutcome) -> None:
        """Report the exact gradient norms of step ``step`` beside their estimates."""
        if not self.active or outcome.exact_norms is None:
            return
        estimates, exact = torch.stack([outcome.grad_norms, outcome.exact_norms]).tolist()
        metrics = {**by_task("estimate", estimates), **by_task("exact", exact)}
        self._write({"kind": "exact_norms", "step": step, "epoch": epoch, **metrics})
        self._scalars(step, metrics)

    def validation(self, step: int, epochs: float, metrics: dict[str, Any], *, best: bool) -> None:
        """Report a validation.

        Args:
            step: steps done.
            epochs: epochs done; a fraction within one.
            metrics: ``{"retrieval": {metric: value}, "ranking": {task: {metric: value or None}}}``.
            best: whether it is the best so far.
        """
        if not self.active:
            return
        epoch = int(epochs) if epochs == int(epochs) else round(epochs, 4)
        self._write({"kind": "validation", "step": step, "epoch": epoch, "best": best, **metrics})
        groups = {"retrieval": metrics["retrieval"], **metrics["ranking"]}
        self._scalars(
            step,
            {
                f"validation/{group}/{name}": value
                for group, values in groups.items()
                for name, value in values.items()
                if value is not None
            },
        )
        self._progress.update(self._task, completed=step)
        self.note(self._lines(f"epoch {epoch:g}", metrics, best=best))

    def new_day(self, day: int, step: int, num_users: int, metrics: dict[str, Any]) -> None:
        """Report how well an appended day was predicted before it is trained on.

        Args:
            day: number of the day.
            step: steps done.
            num_users: users of the day that were evaluated.
            metrics: see ``validation``.
        """
        if not self.active:
            return
        self._write({"kind": "day", "day": day, "step": step, "num_users": num_users, **metrics})
        for group, values in {"retrieval": metrics["retrieval"], **metrics["ranking"]}.items():
            shown = {f"day/{group}/{name}": value for name, value in values.items() if value is not None}
            self._scalars(day, shown)
        self.note(self._lines(f"day {day}, before it is trained on", metrics))

    def finished_day(self, state: TrainState) -> None:
        """Report that an appended day has been trained on."""
        if not self.active:
            return
        self._write({"kind": "finished", "step": state.step, "epoch": state.epoch, "day": state.known_days})
        self._end_bar()
        self.note(f"trained on day {state.known_days}, step {state.step}")

    def finished(self, state: TrainState, early: str = "") -> None:
        """Report the end of the run: what it came to, and the command that goes on from here.

        Args:
            state: state of the run at its end.
            early: why it ended before its last epoch; empty if it did not.
        """
        if not self.active:
            return
        self._write({"kind": "finished", "step": state.step, "epoch": state.epoch, "best": state.best})
        # A bar that ends early is full at the steps that were trained.
        self._progress.update(self._task, completed=state.step, total=state.step)
        self._end_bar()
        self.note(f"finished after epoch {state.epoch}, step {state.step}" + (f": {early}" if early else ""))
        if state.best:
            self.note(f"best epoch {state.best['epoch']}:  {self._selection} {state.best['value']:.4f}")
            self.note(f"next:  unigrf evaluate --run {shlex.quote(str(self._run))} --split test", whole=True)

    def stopped(self, state: TrainState) -> None:
        """Report that the run was asked to stop, and has saved."""
        if self.active:
            self._progress.update(self._task, completed=state.step)
            self._end_bar()
            self.note(f"asked to stop: saved after step {state.step}; continue with --resume")

    def warn(self, text: str) -> None:
        """Tell, and log, what went wrong without ending the run."""
        if self.active:
            self._write({"kind": "warning", "text": text})
            self.note(f"warning: {text}", whole=True)

    def note(self, text: str, *, whole: bool = False) -> None:
        """Print a line above the bar; ``whole`` keeps it one line, for a command that is copied."""
        if self.active:
            # A task in brackets is no markup.
            self.console.print(text, markup=False, soft_wrap=whole)

    def restart_clock(self) -> None:
        """Keep what happened since the last report (a validation, a save) out of the next rate."""
        self._since = time.perf_counter()

    def close(self) -> None:
        if self.active:
            self._end_bar()
            for file in (self._log, self._board):
                with suppress(OSError):  # told when it was written to
                    file.close()

    def _end_bar(self) -> None:
        if self._live.is_started:
            self._live.stop()
            if not self.console.is_terminal:
                # There the bar is drawn once, here, without an end of line.
                self.console.print()

    def _lines(self, title: str, metrics: dict[str, Any], *, best: bool = False) -> str:
        """The metrics that a person follows, and the one that picks the best model; lines end between metrics."""
        named, selection = named_metrics(metrics), str(self._selection)
        shown = [name for name in named if name.partition("[")[0] in _SHOWN or name == selection]
        parts = [f"{name} {'undefined' if named[name] is None else format(named[name], '.4f')}" for name in shown]
        parts = [f"{title}:", *parts, *["best so far"] * best]
        unbroken = "  ".join(part.replace(" ", _UNBROKEN) for part in parts)
        return textwrap.fill(unbroken, self.console.width, subsequent_indent="  ").replace(_UNBROKEN, " ")

    def _write(self, record: dict[str, Any]) -> None:
        try:
            self._log.write(json.dumps(record) + "\n")
            self._log.flush()
        except OSError as error:
            self._lost(f"the log {self._log.name} misses lines: {error.strerror}")

    def _scalars(self, step: int, metrics: dict[str, float]) -> None:
        try:
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)
        except OSError as error:
            self._lost(f"TensorBoard's files miss values: {error.strerror}")

    def _lost(self, what: str) -> None:
        """A full disk ends no run; said once."""
        if not self._told_of_loss:
            self._told_of_loss = True
            self.note(f"warning: {what}; training goes on", whole=True)


def _readable(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _step_metrics(outcome: StepOutcome) -> dict[str, float]:
    """The numbers of a step by name, in one copy from the device."""
    values = [
        outcome.loss[None],
        outcome.losses,
        outcome.weights,
        outcome.grad_norms,
        outcome.enhancer_counts,
    ]
    on_host = torch.cat(values).cpu().split([value.numel() for value in values])
    (loss,), losses, weights, grad_norms, (hard_negatives, soft_positives) = (part.tolist() for part in on_host)
    return {
        "loss": loss,
        **by_task("loss", losses),
        **by_task("weight", weights),
        **by_task("grad_norm", grad_norms),
        "hard_negatives": hard_negatives,
        "soft_positives": soft_positives,
    }

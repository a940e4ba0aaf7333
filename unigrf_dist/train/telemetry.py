"""What a run tells: progress bar, ``log.jsonl`` and TensorBoard. Only rank 0 speaks.

This is the one place that moves a step's numbers to the host, every ``log_every_steps`` steps.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from unigrf_dist.train.step import StepOutcome


class Reporter:
    """Writes the run's log and shows its progress; silent where ``speaks`` is false.

    Args:
        run: the run's folder; the log is appended to.
        total_steps: of the whole run.
        done_steps: before a resume.
        speaks: whether this is rank 0.
    """

    def __init__(self, run: Path, *, total_steps: int, done_steps: int, speaks: bool) -> None:
        self.speaks = speaks
        self._events, self._since = 0.0, time.perf_counter()
        if not speaks:
            return
        self.console = Console()
        self._log = (run / "log.jsonl").open("a", encoding="utf-8")
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
        self._live.start()

    def header(self, **facts: Any) -> None:
        """What is trained, on what."""
        if self.speaks:
            self.console.print("  ".join(f"[bold]{name}[/] {value}" for name, value in facts.items()))
            self._write({"kind": "header", **facts})

    def step(self, step: int, epoch: int, outcome: StepOutcome, learning_rate: float, events: float) -> None:
        """Report step ``step``; ``events`` went through the model since the last report."""
        if not self.speaks:
            return
        now = time.perf_counter()
        rate, seconds = events / max(now - self._since, 1e-9), now - self._since
        self._since = now
        values = torch.cat([outcome.loss[None], outcome.losses, outcome.weights, outcome.grad_norms]).tolist()
        names = ("loss", "loss_retrieval", "loss_ranking", "weight_retrieval", "weight_ranking")
        metrics = dict(zip((*names, "grad_norm_retrieval", "grad_norm_ranking"), values, strict=True))
        hard, soft_positives = outcome.enhancer_counts.tolist()
        metrics.update(hard_negatives=hard, soft_positives=soft_positives)
        metrics.update(lr=learning_rate, events_per_second=rate, seconds=seconds)
        self._write({"kind": "step", "step": step, "epoch": epoch, **metrics})
        self._scalars(step, metrics)
        self._metrics.plain = (
            f"loss {values[0]:.3f}  retrieval {values[1]:.3f} ×{values[3]:.2f}  "
            f"ranking {values[2]:.3f} ×{values[4]:.2f}  {rate:,.0f} events/s"
        )
        self._progress.update(self._task, completed=step, epoch=epoch + 1)

    def exact_norms(self, step: int, epoch: int, outcome: StepOutcome) -> None:
        """Report the exact gradient norms of step ``step`` beside their estimates."""
        if not self.speaks or outcome.exact_norms is None:
            return
        retrieval, ranking, *exact = torch.cat([outcome.grad_norms, outcome.exact_norms]).tolist()
        metrics = {"estimate_retrieval": retrieval, "estimate_ranking": ranking}
        metrics.update(exact_retrieval=exact[0], exact_ranking=exact[1])
        self._write({"kind": "exact_norms", "step": step, "epoch": epoch, **metrics})
        self._scalars(step, metrics)

    def validation(self, step: int, epoch: int, metrics: dict[str, Any], *, best: bool) -> None:
        """Report validation figures: ``{"retrieval": {...}, "ranking": {task: {...}}}``."""
        if not self.speaks:
            return
        self._write({"kind": "validation", "step": step, "epoch": epoch, "best": best, **metrics})
        flat = {f"retrieval/{k}": v for k, v in metrics["retrieval"].items()}
        for task, values in metrics["ranking"].items():
            flat.update({f"{task}/{k}": v for k, v in values.items() if v is not None})
        self._scalars(step, {f"validation/{k}": v for k, v in flat.items()})
        shown = {k: v for k, v in flat.items() if k.endswith(("hr@10", "ndcg@10", "mrr", "auc"))}
        text = "  ".join(f"{name.split('/')[-1]} {value:.4f}" for name, value in shown.items())
        self.console.print(f"validation after epoch {epoch}:  {text}{'  [green]best so far[/]' if best else ''}")

    def note(self, text: str) -> None:
        """A line for the person who watches."""
        if self.speaks:
            self.console.print(text)

    def restart_clock(self) -> None:
        """Leave what happened since the last report (a validation, a save) out of the next rate."""
        self._since = time.perf_counter()

    def close(self) -> None:
        if self.speaks:
            self._live.stop()
            self._log.close()
            self._board.close()

    def _write(self, record: dict[str, Any]) -> None:
        self._log.write(json.dumps(record) + "\n")
        self._log.flush()

    def _scalars(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

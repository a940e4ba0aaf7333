"""Numbers and notes in words, escaped for the page."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

DASH = "–"


def number(value: float | None) -> str:
    """A metric."""
    return DASH if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def metric_name(name: str) -> str:
    """``hr@10`` as people write it."""
    spelled = {
        "mrr": "MRR",
        "auc": "AUC",
        "log_loss": "log loss",
        "calibration": "predicted / observed",
        "ece": "calibration error",
    }
    return spelled.get(name, name.replace("hr@", "HR@").replace("ndcg@", "NDCG@"))


def missing(what: str, command: str = "") -> str:
    """A note in the place of something that is not there."""
    how = f": run <code>{escape(command)}</code>" if command else ""
    return f'<p class="card missing">{escape(what)}{how}</p>'


def evaluate_command(run: Path, split: str = "test") -> str:
    """What fills the gaps of a report."""
    return f"unigrf evaluate --run {run}" + (f" --split {split}" if split != "test" else "")


def plain(value: Any) -> str:
    """A value of the configuration."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(plain(each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(each)}" for name, each in value.items())
    return str(value)

"""Numbers, names of metrics and notes as people read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASH = "–"
_SPELLED = {
    "mrr": "MRR",
    "auc": "AUC",
    "log_loss": "log loss",
    "calibration": "predicted / observed",
    "ece": "calibration error",
}


@dataclass(frozen=True)
class Missing:
    """A note in place of something that is not there.

    Attributes:
        what: what is missing.
        command: command that makes it; empty if there is none.
    """

    what: str
    command: str = ""


def number(value: float | None) -> str:
    """A metric to four decimals, or a dash."""
    return DASH if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def metric_name(name: str) -> str:
    """``hr@10`` as people write it; ``auc[click == 1]``, of one ranking task, keeps its rule."""
    plain_name, bracket, rule = name.partition("[")
    spelled = _SPELLED.get(plain_name, plain_name.replace("hr@", "HR@").replace("ndcg@", "NDCG@"))
    return f"{spelled} {bracket}{rule}" if bracket else spelled


def evaluate_command(run: Path, split: str = "test") -> str:
    """The command that fills the gaps of a report."""
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

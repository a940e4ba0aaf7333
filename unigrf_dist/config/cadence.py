"""How often something happens in a run: every so many steps, minutes or epochs."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(step|minute|epoch)s?")
_EITHER = re.compile(r"\||\bor\b")
_FORM = "give steps, minutes or epochs, as in `500 steps`, `10 minutes`, `2 epochs` or `500 steps or 10 minutes`"


@dataclass(frozen=True)
class Cadence:
    """What comes first of these; 0 for never.

    Attributes:
        steps: steps of the run, counted from its start.
        minutes: minutes on rank 0's clock since the last time.
        epochs: whole epochs of the run.
    """

    steps: int = 0
    minutes: float = 0.0
    epochs: int = 0

    def __str__(self) -> str:
        parts = [(self.steps, "step"), (self.minutes, "minute"), (self.epochs, "epoch")]
        return " or ".join(f"{n:g} {unit}{'' if n == 1 else 's'}" for n, unit in parts if n)

    def at(self, *, step: int = 0, epoch: int = 0) -> bool:
        """Whether it is due after ``step`` steps, or after ``epoch`` epochs."""
        return _divides(self.steps, step) or _divides(self.epochs, epoch)


def parse_cadence(text: str) -> Cadence:
    """Read ``500 steps``, ``10 minutes``, ``2 epochs``, or several of them with ``or`` (or ``|``) between.

    Raises:
        ValueError: it is none of these.
    """
    counts: dict[str, float] = {}
    for part in _EITHER.split(str(text)):
        match = _PART.fullmatch(part.strip().lower())
        number = float(match[1]) if match else 0.0
        if match is None or number <= 0 or match[2] in counts or (match[2] != "minute" and number % 1):
            raise ValueError(_FORM)
        counts[match[2]] = number
    return Cadence(int(counts.get("step", 0)), counts.get("minute", 0.0), int(counts.get("epoch", 0)))


def _divides(every: int, count: int) -> bool:
    return every > 0 and count > 0 and count % every == 0

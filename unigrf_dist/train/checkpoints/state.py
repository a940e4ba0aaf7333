"""State of a run besides weights, moments and candidates."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class TrainState:
    """Where a run stands.

    Attributes:
        step: steps done.
        skipped: how many of them left their update out, because a loss or gradient was not finite.
        known_days: appended days of the data set that the run has been trained on.
        day: appended day that it is being trained on; 0 for none.
        day_epoch: passes over that day that are done.
        epoch: epoch that the next batch belongs to, from 0.
        step_in_epoch: batches of that epoch already trained on.
        best: the best validation so far: metric, value, step and epoch; empty before the first one.
        validations_without_gain: validations since the best one.
        weighter: state of the weighter.
        scheduler: state of DeepSpeed's learning-rate scheduler; empty without one.
        learning_rate: rate of the next dense update.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    validations_without_gain: int = 0
    weighter: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    skipped: int = 0
    known_days: int = 0
    day: int = 0
    day_epoch: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

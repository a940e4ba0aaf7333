"""The split: which events of a user are training, validation and test.

By default the last events of a user are held out: of ``n >= 3``, event ``n - 1`` is test, ``n - 2`` validation and
the rest training, and users of fewer events are training only. A split in time cuts all users at the same moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from unigrf_dist.data.sequences import Sequences

Split = Literal["validation", "test"]
SPLITS: tuple[Split, ...] = ("validation", "test")
EvaluatedSplit = Literal["validation", "test", "day"]
EVALUATED_SPLITS: tuple[EvaluatedSplit, ...] = (*SPLITS, "day")
"""Beside a data set's own splits, what one appended day brought."""
TrainTo = Literal["training", "validation", "test"]
"""The last event that is trained on: of the training events, the validation event, or the test event. Under a
split in time, of that period."""
_MIN_EVENTS_TO_HOLD_OUT = 3
_NOT_TRAINED_ON = {"training": 2, "validation": 1, "test": 0}
_FROM_THE_END = {"validation": 2, "test": 1}

IntArray = NDArray[np.int64]


class SplitRule(Protocol):
    """Which events are trained on, and which one of a user is predicted; a function of the user's events alone."""

    def num_training_events(self, sequences: Sequences, to: TrainTo = "training") -> IntArray:
        """``[U]`` int64, how many events of each user, counted from the oldest, are trained on."""
        ...

    def held_out(self, sequences: Sequences, split: Split) -> tuple[IntArray, IntArray]:
        """``[H]`` indices of the users that have an event to predict, ascending, and ``[H]`` its position.

        All events before that position are its history, of which there is at least one.
        """
        ...


@dataclass(frozen=True)
class LastEvents:
    """The last event of a user is test, the one before it validation."""

    def num_training_events(self, sequences: Sequences, to: TrainTo = "training") -> IntArray:
        return num_training_events(sequences.lengths, to)

    def held_out(self, sequences: Sequences, split: Split) -> tuple[IntArray, IntArray]:
        users = np.flatnonzero(has_held_out(sequences.lengths))
        return users, held_out_position(sequences.lengths[users], split)


LAST_EVENTS = LastEvents()
"""What a data set is prepared and counted for."""


@dataclass(frozen=True)
class TimeSplit:
    """Training ends at one moment for all users; each user's first event of a later period is predicted.

    An event is training if it is before ``validation_from``. A user's validation event is its first one from
    ``validation_from`` on, if that is before ``test_from``; its test event is the first one from ``test_from`` on.
    Users without an event before have none. So no model knows an event that is later than what it predicts.

    Attributes:
        validation_from, test_from: seconds, the first moment of each period.
    """

    validation_from: int
    test_from: int

    def __str__(self) -> str:
        start, end = (_moment(each) for each in (self.validation_from, self.test_from))
        return (
            f"in time: training before {start}; validation is a user's first event from then on, if before {end}; "
            "test is the first event from then on; users without an earlier event have none"
        )

    def num_training_events(self, sequences: Sequences, to: TrainTo = "training") -> IntArray:
        if to == "test":
            return sequences.lengths
        return _events_before(sequences, self.validation_from if to == "training" else self.test_from)

    def held_out(self, sequences: Sequences, split: Split) -> tuple[IntArray, IntArray]:
        start = self.validation_from if split == "validation" else self.test_from
        position, end = _events_before(sequences, start), sequences.lengths
        if split == "validation":
            end = _events_before(sequences, self.test_from)
        users = np.flatnonzero((position > 0) & (position < end))
        return users, position[users]


def has_held_out(num_events: IntArray) -> NDArray[np.bool_]:
    """``[U]`` bool, whether users of ``num_events`` ``[U]`` events have a validation and a test event."""
    return num_events >= _MIN_EVENTS_TO_HOLD_OUT


def num_training_events(num_events: IntArray, to: TrainTo = "training") -> IntArray:
    """``[U]`` int64, how many events of each user, counted from the oldest, are trained on."""
    return num_events - _NOT_TRAINED_ON[to] * has_held_out(num_events)


def held_out_position(num_events: IntArray, split: Split) -> IntArray:
    """``[U]`` int64, position of the held-out event; meaningful only where ``has_held_out``."""
    return num_events - _FROM_THE_END[split]


def _events_before(sequences: Sequences, moment: int) -> IntArray:
    """``[U]`` int64, events of each user before ``moment``; events are in the order of time."""
    so_far = np.concatenate([[0], np.cumsum(sequences.timestamps < moment)])
    return np.diff(so_far[sequences.offsets])


def _moment(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"

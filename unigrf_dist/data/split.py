"""The split rule: which events of a user are training, validation and test.

Of ``n >= 3`` events, event ``n - 1`` is test, ``n - 2`` validation and the rest training. Users of fewer
events are training only.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["validation", "test"]
TrainTo = Literal["training", "validation", "test"]
"""The last event that is trained on: of the training events, the validation event, or the test event."""
_MIN_EVENTS_TO_HOLD_OUT = 3
_NOT_TRAINED_ON = {"training": 2, "validation": 1, "test": 0}
_FROM_THE_END = {"validation": 2, "test": 1}


def has_held_out(num_events: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``[U]`` bool, whether users of ``num_events`` ``[U]`` events have a validation and a test event."""
    return num_events >= _MIN_EVENTS_TO_HOLD_OUT


def num_training_events(num_events: NDArray[np.int64], to: TrainTo = "training") -> NDArray[np.int64]:
    """``[U]`` int64, how many events of each user, counted from the oldest, are trained on."""
    return num_events - _NOT_TRAINED_ON[to] * has_held_out(num_events)


def held_out_position(num_events: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """``[U]`` int64, position of the held-out event; meaningful only where ``has_held_out``."""
    return num_events - _FROM_THE_END[split]

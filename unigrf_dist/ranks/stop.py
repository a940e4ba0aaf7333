"""Ctrl-C and SIGTERM as a request: the run stops after the current step and saves."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequest:
    """True once this process has been asked to stop."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def __bool__(self) -> bool:
        return self._asked

"""How making a data set reports its progress."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with the name of the current phase and the share of it that is done, in [0, 1]."""


def no_progress(phase: str, share: float) -> None:
    """A ``Progress`` that reports to nobody."""


class StageClock:
    """Wall-clock time by stage, told by whoever reports progress.

    Args:
        report: gets the progress as well.

    Attributes:
        seconds: time of each stage that has begun, by its name: the first word of the phase.
    """

    def __init__(self, report: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._report = report
        self._stage, self._since = "", time.perf_counter()

    def __call__(self, phase: str, share: float) -> None:
        self._report(phase, share)
        if phase.split()[0] != self._stage:
            self.stop()
            self._stage = phase.split()[0]

    def stop(self) -> None:
        """End the stage that is under way."""
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = "", now

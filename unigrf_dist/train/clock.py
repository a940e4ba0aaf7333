"""When something that happens every so many minutes is due; rank 0's clock decides for all ranks."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Minutes since the last time.

    Args:
        minutes: minutes between two times; 0 for never.
        now: seconds on a clock that never goes back.
    """

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._now = 60.0 * minutes, now
        self._since = now()

    @property
    def due(self) -> bool:
        return self._seconds > 0 and self._now() - self._since >= self._seconds

    def restart(self) -> None:
        """It has just happened."""
        self._since = self._now()

"""Where this rank stands: the last thing that it said it has reached, and when."""

from __future__ import annotations

import time
from typing import NamedTuple


class Reached(NamedTuple):
    """A point of the program.

    Attributes:
        where: what it is, in words.
        number: points reached before it.
        since: ``time.monotonic()`` when it was reached.
    """

    where: str
    number: int
    since: float


# One tuple, replaced whole: the thread that watches reads it without a lock.
_last = Reached("start", 0, time.monotonic())


def reached(where: str) -> None:
    """Say that this rank has come to ``where``; costs less than a microsecond, so say it every step."""
    global _last
    _last = Reached(where, _last.number + 1, time.monotonic())


def last_reached() -> Reached:
    return _last

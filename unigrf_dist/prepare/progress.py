"""How making a data set reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with the name of the current phase and the share of it that is done, in [0, 1]."""


def no_progress(phase: str, share: float) -> None:
    """A ``Progress`` that reports to nobody."""

"""Lines that tell the person at the terminal what a program is doing, before it has a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable

Announce = Callable[[str], None]


def announce_once(text: str) -> None:
    """Print a line on rank 0; the other ranks do the same work and stay silent."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(text, flush=True)


def announce_nothing(_text: str) -> None:
    """For whoever does not want to be told."""

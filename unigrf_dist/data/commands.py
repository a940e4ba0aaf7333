"""The commands that make and show data sets: prepare, synthesize, inspect."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the data commands to ``app``."""

"""Figures that stand alone, as SVG and PNG, in the colours and lines of the report's light theme."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unigrf_dist.errors import UserError
from unigrf_dist.report import svg
from unigrf_dist.report.style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The first theme of the style sheet is the light one.
_THEME = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", STYLE.split("@media")[0]))
INK, MUTED, GRID, SURFACE = (_THEME[name] for name in ("ink", "muted", "grid", "surface"))
GOOD, BAD = _THEME["good"], _THEME["ranking"]
SERIES = tuple(_THEME[f"series-{index}"] for index in range(4))
# The report's charts carry stand-ins for the page's own colours.
_REAL = {svg.INK: INK, svg.MUTED: MUTED, svg.GRID: GRID, svg.SURFACE: SURFACE}


def save_drawing(place: Path, paint: Callable[[Figure], None], *, size: tuple[float, float]) -> list[Path]:
    """Draw and write ``place`` with the endings .svg and .png; equal drawings give equal SVG files.

    Args:
        place: path without an ending.
        paint: draws onto the figure it is given.
        size: inches.

    Raises:
        UserError: a file can't be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # matplotlib types the names one by one; the report's table of them is plain.
    style: Any = {name: _REAL.get(value, value) for name, value in svg.CHART_STYLE.items()}
    style.update(
        {"text.color": INK, "svg.hashsalt": place.name, "figure.facecolor": SURFACE, "axes.titlesize": 10}
    )
    files = [place.with_name(f"{place.name}.{kind}") for kind in ("svg", "png")]
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        try:
            figure.savefig(files[0], metadata={"Date": None, "Creator": None})
            figure.savefig(files[1], dpi=150)
        except OSError as error:
            raise UserError(f"{place}: the drawing can't be written: {error.strerror}") from error
    return files

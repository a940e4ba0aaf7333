"""Drawings that stand alone, as SVG and PNG, in the light colours of the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unigrf_dist.errors import UserError
from unigrf_dist.report.palette import LIGHT, chart_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_drawing(path: Path, paint: Callable[[Figure], None], *, size: tuple[float, float]) -> list[Path]:
    """Draw and write ``path`` with the endings .svg and .png; equal drawings give equal SVG files.

    Args:
        path: path without an ending.
        paint: draws onto the figure it is given.
        size: width and height in inches.

    Returns:
        Both files.

    Raises:
        UserError: a file can't be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = chart_style(LIGHT)
    style.update({"svg.hashsalt": path.name, "figure.facecolor": LIGHT.surface, "axes.titlesize": 10})
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png")]
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        try:
            figure.savefig(files[0], metadata={"Date": None, "Creator": None})
            figure.savefig(files[1], dpi=150)
        except OSError as error:
            raise UserError(f"{path}: the drawing can't be written: {error.strerror}") from error
    return files

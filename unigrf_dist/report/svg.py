"""Matplotlib figures as SVG that lives inside a page: the page's fonts, its colours, light or dark."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Matplotlib needs real colours. These stand for the page's own, which change with the reader's theme; no figure
# uses them for anything else.
INK, MUTED, GRID, SURFACE = "#010101", "#010102", "#010103", "#010104"
RETRIEVAL, RANKING = "#010105", "#010106"
SERIES = ("#010107", "#010108", "#010109", "#01010a")
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "surface",
    RETRIEVAL: "retrieval",
    RANKING: "ranking",
    **{colour: f"series-{i}" for i, colour in enumerate(SERIES)},
}
CHART_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "axes.unicode_minus": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


def css_colour(colour: str) -> str:
    """The page's name of a colour of this module."""
    return f"var(--{_VARIABLES[colour]})"


def draw(name: str, paint: Callable[[Axes], None], *, size: tuple[float, float] = (5.4, 2.7)) -> str:
    """Draw a chart.

    Args:
        name: for readers who can't see it, and for ids that are unique on the page.
        paint: draws onto the axes it is given.
        size: inches; the ratio counts, the page scales the chart to its column.

    Returns:
        An ``<svg>`` element.
    """
    import matplotlib
    from matplotlib.figure import Figure

    salt = hashlib.sha256(name.encode()).hexdigest()[:8]
    with matplotlib.rc_context({**CHART_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        paint(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue(), name, salt)


def _for_page(text: str, name: str, salt: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    opening, rest = text.split(">", maxsplit=1)
    box = re.search(r'viewBox="[^"]+"', opening)
    assert box is not None
    # Ids of one figure, such as axes_1, occur in every other one.
    rest = re.sub(r'\bid="([^"]+)"', rf'id="\g<1>-{salt}"', rest)
    rest = re.sub(r'(url\(#|href="#)([^")]+)', rf"\g<1>\g<2>-{salt}", rest)
    for colour, variable in _VARIABLES.items():
        rest = rest.replace(colour, f"var(--{variable})")
    return f'<svg role="img" aria-label="{escape(name)}" {box.group()}>{rest.strip()}'

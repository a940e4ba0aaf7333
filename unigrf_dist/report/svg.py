"""Matplotlib charts as SVG inside a page: the page's fonts, and its colours, light or dark."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from unigrf_dist.report.palette import LIGHT, NUM_SERIES, Palette, chart_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Matplotlib needs real colours. These stand for the page's variables, which change with the reader's theme; no
# chart uses them for anything else.
_STAND_INS = {name: f"#0101{index:02x}" for index, name in enumerate(LIGHT.variables(), start=1)}
PAGE = Palette(
    **{name: colour for name, colour in _STAND_INS.items() if not name.startswith("series-")},
    series=tuple(_STAND_INS[f"series-{index}"] for index in range(NUM_SERIES)),  # type: ignore[arg-type]
)
"""Colours for charts of the page."""


def css_colour(colour: str) -> str:
    """The style sheet's name of a colour of ``PAGE``."""
    (name,) = (name for name, stand_in in _STAND_INS.items() if stand_in == colour)
    return f"var(--{name})"


def draw(name: str, paint: Callable[[Axes], None], *, size: tuple[float, float] = (5.4, 2.7)) -> str:
    """Draw a chart.

    Args:
        name: name for readers who can't see it, and for ids that are unique on the page.
        paint: draws onto the axes it is given, in colours of ``PAGE``.
        size: width and height in inches; the ratio counts, the page scales the chart to its column.

    Returns:
        An ``<svg>`` element.
    """
    import matplotlib
    from matplotlib.figure import Figure

    salt = hashlib.sha256(name.encode()).hexdigest()[:8]
    with matplotlib.rc_context({**chart_style(PAGE), "svg.hashsalt": salt}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        paint(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue(), name, salt)


def _for_page(text: str, name: str, salt: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    opening, content = text.split(">", maxsplit=1)
    box = re.search(r'viewBox="[^"]+"', opening)
    assert box is not None
    # Ids of one chart, such as axes_1, occur in every other one.
    content = re.sub(r'\bid="([^"]+)"', rf'id="\g<1>-{salt}"', content)
    content = re.sub(r'(url\(#|href="#)([^")]+)', rf"\g<1>\g<2>-{salt}", content)
    for variable, colour in _STAND_INS.items():
        content = content.replace(colour, f"var(--{variable})")
    return f'<svg role="img" aria-label="{escape(name)}" {box.group()}>{content.strip()}'

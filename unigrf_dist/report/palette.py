"""The colours of the report and of all drawings, light and dark: declared here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NUM_SERIES = 4


@dataclass(frozen=True)
class Palette:
    """Colours of one theme, as ``#rrggbb`` or as whatever else the medium understands.

    Attributes:
        page: background of the page.
        surface: background of cards and drawings.
        ink: text.
        muted: text of less weight, axis labels.
        grid: grid lines and borders.
        retrieval: everything that belongs to the retrieval task.
        ranking: everything that belongs to the ranking tasks.
        good: what is better, or the best possible.
        bad: what is worse.
        series: lines of no task; they differ in lightness too, for readers who don't see all colours.
    """

    page: str
    surface: str
    ink: str
    muted: str
    grid: str
    retrieval: str
    ranking: str
    good: str
    bad: str
    series: tuple[str, str, str, str]

    def variables(self) -> dict[str, str]:
        """Colours by the names of the style sheet's variables."""
        names = ("page", "surface", "ink", "muted", "grid", "retrieval", "ranking", "good", "bad")
        return {name: getattr(self, name) for name in names} | {
            f"series-{index}": colour for index, colour in enumerate(self.series)
        }


def _palette(*, blue: str, teal: str, orange: str, purple: str, green: str, **neutral: str) -> Palette:
    return Palette(
        **neutral, retrieval=blue, ranking=orange, good=green, bad=orange, series=(blue, teal, orange, purple)
    )


LIGHT = _palette(
    page="#f5f6f8",
    surface="#ffffff",
    ink="#171b24",
    muted="#626b7c",
    grid="#e3e6ec",
    blue="#3b5bdb",
    teal="#1098a3",
    orange="#d9660a",
    purple="#a63d8f",
    green="#0f8a5f",
)
DARK = _palette(
    page="#0e1117",
    surface="#171b23",
    ink="#e8ebf1",
    muted="#98a2b3",
    grid="#2a303c",
    blue="#8ea4ff",
    teal="#56d0d8",
    orange="#ffa657",
    purple="#e58fd3",
    green="#4fd1a1",
)


def chart_style(palette: Palette) -> Any:
    """Matplotlib settings of every chart and drawing, by name (matplotlib's stubs want each name as a literal)."""
    return {
        "svg.fonttype": "none",
        "font.size": 9.5,
        "text.color": palette.ink,
        "axes.edgecolor": palette.grid,
        "axes.labelcolor": palette.muted,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": palette.grid,
        "grid.linewidth": 0.8,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "axes.unicode_minus": False,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "lines.solid_joinstyle": "round",
    }

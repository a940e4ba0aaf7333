"""The drawing of an ablation: every variant's difference to the baseline, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unigrf_dist.report.palette import LIGHT
from unigrf_dist.report.words import metric_name
from unigrf_dist.study.drawing import save_drawing
from unigrf_dist.study.metric_names import is_less_better
from unigrf_dist.study.results import Comparison
from unigrf_dist.study.statistics import Difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_COLOURS = {"better": LIGHT.good, "worse": LIGHT.bad, "undecided": LIGHT.muted, "one seed": LIGHT.muted}


def draw_differences(comparison: Comparison, path: Path) -> list[Path]:
    """Write the drawing: a panel for each metric, a line for each variant; zero is the baseline.

    Args:
        comparison: comparison to draw.
        path: path without an ending.
    """
    names = [name for name in comparison.variants if name != comparison.baseline and comparison.seeds[name]]
    columns = min(_COLUMNS, len(comparison.metrics))
    rows = -(-len(comparison.metrics) // columns)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, metric in zip(grid.flat, comparison.metrics, strict=False):
            _panel(axes, metric, [_difference(comparison, name, metric) for name in names], names)
        for axes in grid.flat[len(comparison.metrics) :]:
            axes.set_visible(False)
        figure.suptitle(
            f"Difference to {comparison.baseline}, test split", x=0.01, ha="left", weight="bold", size=12
        )
        _legend(figure)

    height = 0.9 + rows * (0.75 + 0.3 * max(len(names), 1))
    return save_drawing(path, paint, size=(1.6 + 2.9 * columns, height))


def _difference(comparison: Comparison, name: str, metric: str) -> Difference | None:
    cell = comparison.cells[name].get(metric)
    return None if cell is None else cell.difference


def _panel(axes: Axes, metric: str, differences: Sequence[Difference | None], names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    low_high = _limits(differences)
    axes.axvline(0, color=LIGHT.ink, linewidth=1, zorder=1)
    for row, difference in enumerate(differences):
        if difference is None:
            axes.annotate(
                "not trained", (0.98, row), xycoords=("axes fraction", "data"), ha="right", va="center",
                color=LIGHT.muted, size=8, style="italic",
            )  # fmt: skip
        else:
            _mark(axes, row, difference, low_high)
    # A rule stands below its metric: panels are narrow.
    name, bracket, rule = metric_name(metric).partition(" [")
    title = name + (" (less is better)" if is_less_better(metric) else "") + f"\n[{rule}" * bool(bracket)
    axes.set_title(title, loc="left")
    axes.set_xlim(*low_high)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=LIGHT.ink)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _mark(axes: Axes, row: int, difference: Difference, limits: tuple[float, float]) -> None:
    mean, half, colour = difference.estimate.mean, difference.estimate.half_width, _COLOURS[difference.verdict]
    if not limits[0] <= mean <= limits[1]:
        # A variant that fails altogether would press all others into a line at zero.
        right = mean > limits[1]
        axes.annotate(
            f"{mean:+.3f} {'→' if right else ''}" if right else f"← {mean:+.3f}",
            (0.99 if right else 0.01, row), xycoords=("axes fraction", "data"), size=8, weight="bold",
            ha="right" if right else "left", va="center", color=colour,
        )  # fmt: skip
        return
    if half is not None:
        axes.plot([mean - half, mean + half], [row, row], color=colour, linewidth=2.4, alpha=0.55)
    hollow = difference.verdict in ("undecided", "one seed")
    axes.plot(mean, row, "o", color=colour, markersize=6, markerfacecolor=LIGHT.surface if hollow else colour)


def _limits(differences: Sequence[Difference | None]) -> tuple[float, float]:
    """Ends of the axis: all intervals, but none so far out that the others would vanish; zero always."""
    estimates = [each.estimate for each in differences if each is not None]
    if not estimates:
        return -1.0, 1.0
    reach = np.array([abs(each.mean) + (each.half_width or 0.0) for each in estimates])
    limit = 6 * float(np.median(reach))
    widest = max([value for value in reach if value <= limit], default=limit) or 1e-4
    ends = [end for each in estimates for end in _ends(each.mean, each.half_width or 0.0) if abs(end) <= widest]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.08 * max(high - low, 1e-6)
    return low - room, high + room


def _ends(mean: float, half: float) -> tuple[float, float]:
    return mean - half, mean + half


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    kinds = [
        ("better", LIGHT.good, LIGHT.good),
        ("worse", LIGHT.bad, LIGHT.bad),
        ("undecided, or one seed", LIGHT.muted, LIGHT.surface),
    ]
    handles = [
        Line2D([], [], color=colour, marker="o", markerfacecolor=face, label=label, linewidth=2.4)
        for label, colour, face in kinds
    ]
    figure.legend(
        handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=8.5,
        title="bars: 95 % intervals over seeds, paired with the baseline", title_fontsize=8.5, alignment="left",
    )  # fmt: skip

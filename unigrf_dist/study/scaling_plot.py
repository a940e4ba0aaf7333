"""The drawing of a scaling study: each loss and metric against FLOPs and parameters, with the fitted law."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unigrf_dist.report.palette import LIGHT
from unigrf_dist.study.curves import AXES, Against, Curve, SizedRun
from unigrf_dist.study.drawing import save_drawing
from unigrf_dist.study.power_law import PowerLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(fitted: Sequence[Curve], runs: Sequence[SizedRun], path: Path) -> list[Path]:
    """Write the drawing: a row for each loss or metric, a column for each axis; colours tell the number of blocks.

    Args:
        fitted: curves to draw.
        runs: runs behind the points of every curve.
        path: path without an ending.
    """
    depths = sorted({each.blocks for each in runs})

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(fitted), len(AXES), squeeze=False, sharey="row", sharex="col")
        for row, curve in zip(grid, fitted, strict=True):
            for axes, against in zip(row, AXES, strict=True):
                _panel(axes, curve, runs, against, depths)
            row[0].set_ylabel(curve.name.replace(" [", "\n["), color=LIGHT.ink)
        for axes, against in zip(grid[-1], AXES, strict=True):
            axes.set_xlabel(against)
        _legend(figure, depths)

    return save_drawing(path, paint, size=(9.0, 0.9 + 2.1 * len(fitted)))


def _panel(axes: Axes, curve: Curve, runs: Sequence[SizedRun], against: Against, depths: Sequence[int]) -> None:
    sizes = np.array([each.size(against) for each in runs])
    law = curve.laws[against]
    if isinstance(law, PowerLaw):
        x = np.geomspace(sizes.min() / 1.2, sizes.max() * 1.2, 100)
        axes.fill_between(x, *law.band(x), color=LIGHT.muted, alpha=0.16, linewidth=0)
        axes.plot(x, law(x), color=LIGHT.muted, linewidth=1.4, linestyle="-" if law.determined else (0, (4, 3)))
    for each, size, value in zip(runs, sizes, curve.values, strict=True):
        axes.plot(size, value, "o", color=_colour(each.blocks, depths), markersize=5)
    axes.set_xscale("log")
    axes.set_title(_words(law), loc="right", color=LIGHT.muted, size=8)


def _words(law: PowerLaw | str) -> str:
    if isinstance(law, str):
        return law
    if not law.determined:
        return "floor and exponent not determined by these points"
    return f"a {law.a:.3f}, c {law.c:.2f} ({law.c_interval[0]:.2f}–{law.c_interval[1]:.2f})"


def _colour(blocks: int, depths: Sequence[int]) -> str:
    return LIGHT.series[depths.index(blocks) % len(LIGHT.series)]


def _legend(figure: Figure, depths: Sequence[int]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=_colour(each, depths), marker="o", linestyle="", label=f"{each} block{'s' * (each > 1)}"
        )
        for each in depths
    ]
    handles.append(Line2D([], [], color=LIGHT.muted, linewidth=1.4, label="a + b C^-c, 95 % band"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8.5)

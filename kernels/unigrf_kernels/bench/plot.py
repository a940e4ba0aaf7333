"""One picture per run: speed of every implementation over the shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .task import Result

_COLUMNS = 2  # forward and backward side by side


def draw(results: Sequence[Result], title: str, path: Path) -> None:
    """Write a picture; one panel per operator and phase, TFLOP/s where operations count, else GB/s.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    timed = [result for result in results if not result.refusal]
    panels: dict[tuple[str, str], list[Result]] = {}
    for result in timed:
        panels.setdefault((result.operator, result.phase), []).append(result)
    most_shapes = max((len({result.shape for result in chosen}) for chosen in panels.values()), default=1)
    rows = max(-(-len(panels) // _COLUMNS), 1)
    size = (_COLUMNS * max(5.0, 0.5 * most_shapes + 2), 3.2 * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=9)
    for number, (panel, chosen) in enumerate(panels.items(), start=1):
        _draw_panel(figure.add_subplot(rows, _COLUMNS, number), " ".join(panel), chosen)
    figure.savefig(path, dpi=110)


def _draw_panel(axes: Any, title: str, results: Sequence[Result]) -> None:
    by_flops = any(result.tflops for result in results)
    shapes = list(dict.fromkeys(result.shape for result in results))
    implementations = list(dict.fromkeys(result.implementation for result in results))
    width = 0.8 / len(implementations)
    for index, implementation in enumerate(implementations):
        points = [result for result in results if result.implementation == implementation]
        axes.bar(
            [shapes.index(result.shape) + (index - (len(implementations) - 1) / 2) * width for result in points],
            [result.tflops if by_flops else result.gb_per_second for result in points],
            width,
            label=implementation,
        )
    axes.set_xticks(range(len(shapes)), shapes, rotation=20, ha="right", fontsize=7)
    axes.set_ylabel("TFLOP/s" if by_flops else "GB/s")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)

"""The charts of the page: from records to an SVG and its legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.report.svg import PAGE, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More points than a chart has pixels only make the page heavy.
_MAX_POINTS = 500
_SMOOTHED_SHARE = 1 / 40

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Key:
    """An entry of a chart's legend: colour, name, and a value worth reading."""

    colour: str
    name: str
    value: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart with its title, legend and note.

    Attributes:
        title: what is shown.
        svg: an ``<svg>`` element.
        keys: entries of the legend; empty if there is only one colour.
        note: a sentence under the chart, if one is needed.
    """

    title: str
    svg: str
    keys: Sequence[Key] = ()
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A named series over the chart's x values; NaN where it has no value."""

    name: str
    colour: str
    values: Floats


def training_chart(
    title: str,
    x: Floats,
    lines: Sequence[Line],
    *,
    x_label: str,
    scale: Literal["linear", "from zero", "log"] = "linear",
    smooth: bool = True,
) -> Chart:
    """Series of training steps; noisy ones faint as logged and strong as a running median.

    Args:
        title: title of the chart.
        x: ``[n]`` positions, ascending.
        lines: series of ``n`` values each.
        x_label: unit of ``x``.
        scale: scale of the y axis; ``log`` leaves zeros out.
        smooth: whether to draw the running median.
    """

    def paint(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter

        for line in lines:
            values = np.where(line.values > 0, line.values, np.nan) if scale == "log" else line.values
            points, thinned = _thinned(x, values)
            if smooth:
                axes.plot(points, thinned, color=line.colour, alpha=0.28, linewidth=1)
            axes.plot(points, _running_median(thinned) if smooth else thinned, color=line.colour)
        axes.margins(x=0.01)
        axes.set_xlabel(x_label)
        if scale == "log":
            axes.set_yscale("log")
        else:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        if scale == "from zero":
            axes.set_ylim(bottom=0)

    keys = [Key(line.colour, line.name, f"last {_short(_last(line.values))}") for line in lines]
    return Chart(title, draw(title, paint), keys)


def validation_chart(
    title: str, x: Floats, lines: Sequence[Line], *, x_label: str, less_is_better: bool = False
) -> Chart:
    """Few exact points: a line through all of them, the best one marked.

    Args:
        title: title of the chart.
        x: ``[n]`` positions, ascending.
        lines: series of ``n`` values each.
        x_label: unit of ``x``.
        less_is_better: whether the best value is the smallest, as of a loss.
    """
    best = np.nanargmin if less_is_better else np.nanargmax

    def paint(axes: Axes) -> None:
        for line in lines:
            axes.plot(x, line.values, color=line.colour, marker="o", markersize=3)
            if not np.isnan(line.values).all():
                top = int(best(line.values))
                axes.plot(
                    x[top], line.values[top], "o", markersize=8, color=line.colour, markeredgecolor=PAGE.surface
                )
        axes.set_xlabel(x_label)
        axes.margins(x=0.03)

    keys = [
        Key(line.colour, line.name, f"best {line.values[best(line.values)]:.4f}")
        for line in lines
        if not np.isnan(line.values).all()
    ]
    return Chart(title, draw(title, paint), keys)


def calibration_chart(task: str, bins: Sequence[Mapping[str, Any]]) -> Chart:
    """Observed share of positives over the mean prediction of each bin, with 95 % Wilson intervals.

    Args:
        task: name of the ranking task.
        bins: calibration bins of the task in ``metrics.json``.
    """
    count = np.array([each["count"] for each in bins], dtype=float)
    predicted = np.array([each["mean_predicted"] for each in bins])
    observed = np.array([each["observed"] for each in bins])
    # [bins] each.
    low, high = np.array([_wilson_interval(each["observed"], each["count"]) for each in bins]).T

    def paint(axes: Axes) -> None:
        from matplotlib.ticker import PercentFormatter

        first, last = min(predicted.min(), low.min()), max(predicted.max(), high.max())
        room = 0.06 * max(last - first, 0.02)
        limits = (max(first - room, 0.0), min(last + room, 1.0))
        axes.plot(limits, limits, color=PAGE.muted, linewidth=1, linestyle=(0, (4, 3)))
        axes.vlines(predicted, low, high, color=PAGE.ranking, alpha=0.45, linewidth=2)
        axes.plot(predicted, observed, "o", color=PAGE.ranking, markersize=5.5, markeredgecolor=PAGE.surface)
        axes.set(xlim=limits, ylim=limits, xlabel="predicted", ylabel="observed")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(visible=True, axis="both")

    title = f"Calibration of {task}"
    note = f"{len(bins)} groups of equal size, {count.sum():,.0f} users; bars are 95 % intervals of the shares."
    return Chart(title, draw(title, paint, size=(5.4, 4.0)), note=note)


def length_chart(lengths: NDArray[np.int64], num_users: int, max_events: int | None) -> Chart:
    """How many events users have, on a logarithmic axis, with the length of history that the model sees.

    Args:
        lengths: ``[n]`` events of each user, of all users or of a sample.
        num_users: users of the data set.
        max_events: longest history that the model sees; None if it is not known.
    """
    edges = _length_edges(int(lengths.min()), int(lengths.max()))
    counts = np.histogram(lengths, edges)[0] / len(lengths)

    def paint(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

        axes.bar(
            edges[:-1], counts, width=np.diff(edges), align="edge", color=PAGE.series[1], edgecolor=PAGE.surface
        )
        axes.set(xscale="log", xlabel="events of a user", xlim=(edges[0], edges[-1]))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if max_events is not None and edges[0] < max_events < edges[-1]:
            axes.axvline(max_events, color=PAGE.ink, linewidth=1, linestyle=(0, (4, 3)))

    notes = [f"Median {np.median(lengths):,.0f}, longest {lengths.max():,}"]
    if len(lengths) < num_users:
        notes.append(f"a sample of {len(lengths):,} of {num_users:,} users")
    if max_events is not None:
        notes.append(
            f"{(lengths <= max_events).mean():.0%} have no more than the {max_events:,} events that the model sees"
        )
    title = "Events per user"
    return Chart(title, draw(title, paint, size=(5.4, 4.0)), note="; ".join(notes) + ".")


def _thinned(x: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Means of neighbours where there are more than can be seen."""
    size = -(-len(x) // _MAX_POINTS)
    if size <= 1:
        return x, values
    starts = np.arange(0, len(x), size)
    sizes = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(values, starts) / sizes


def _running_median(values: Floats) -> Floats:
    """Centred median over a share of the chart, narrower at its ends; NaN counts as absent.

    A median, because the short batch at an epoch's end stands out of every curve of steps.
    """
    half = int(len(values) * _SMOOTHED_SHARE / 2)
    padded = np.concatenate([np.full(half, np.nan), values, np.full(half, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    medians = np.full(len(values), np.nan)
    valid = ~np.isnan(windows).all(axis=1)
    medians[valid] = np.nanmedian(windows[valid], axis=1)
    return medians


def _wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share observed among ``count`` (Wilson, 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(round(share * count), count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _length_edges(shortest: int, longest: int) -> Floats:
    edges = np.geomspace(max(shortest, 1), longest + 1, 37)
    # Lengths are whole numbers: narrower bins would stand empty in between.
    return np.unique(np.ceil(edges))


def _last(values: Floats) -> float:
    valid = values[~np.isnan(values)]
    return float(valid[-1]) if len(valid) else float("nan")


def _short(value: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

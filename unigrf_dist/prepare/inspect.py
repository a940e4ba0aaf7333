"""``unigrf inspect``: statistics of a data set, as a table and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from unigrf_dist.data.dataset import Dataset
from unigrf_dist.data.manifest import Manifest
from unigrf_dist.data.sampling import sample_row_groups
from unigrf_dist.prepare.staging import user_error_of_disk
from unigrf_dist.prepare.summary import manifest_facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TIME_BINS = 48
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
_MAX_BEHAVIOURS = 24
_COLOUR = "#3465a4"


@dataclass(frozen=True)
class Inspection:
    """Statistics of a data set.

    Attributes:
        path: folder of the data set.
        manifest: content of its ``manifest.json``.
        lengths: ``[num_users]`` int64, events of each user.
        item_counts: ``[num_items]`` int64, training events of each item.
        time_edges: ``[bins + 1]`` float64, edges of the time histogram in seconds.
        time_counts: ``[bins]`` int64, events of each bin.
    """

    path: Path
    manifest: Manifest
    lengths: NDArray[np.int64]
    item_counts: NDArray[np.int64]
    time_edges: NDArray[np.float64]
    time_counts: NDArray[np.int64]


def examine(dataset: Dataset) -> Inspection:
    """Compute the statistics in one pass over the row groups.

    Raises:
        UserError: a shard cannot be read.
    """
    manifest = dataset.manifest
    edges = np.linspace(manifest.first_timestamp, manifest.last_timestamp + 1, _TIME_BINS + 1)
    lengths, counts = [], np.zeros(_TIME_BINS, np.int64)
    for sequences in sample_row_groups(dataset):
        lengths.append(sequences.lengths)
        counts += np.histogram(sequences.timestamps, edges)[0]
    return Inspection(
        path=dataset.path,
        manifest=manifest,
        lengths=np.concatenate(lengths),
        item_counts=dataset.training_counts().numpy(),
        time_edges=edges,
        time_counts=counts,
    )


def behaviour_shares(manifest: Manifest) -> list[tuple[str, float]]:
    """Share of the events with each behaviour value, as (``name = value``, share); zeros of flags are omitted."""
    shares: dict[tuple[str, float], float] = {}
    for behaviour, count in zip(manifest.behaviours, manifest.behaviour_counts, strict=True):
        for named in behaviour.items():
            shares[named] = shares.get(named, 0.0) + count / manifest.num_events
    values = {name: {value for other, value in shares if other == name} for name, _ in shares}
    return [
        (f"{name} = {value:g}", share)
        for (name, value), share in sorted(shares.items())
        if value or not values[name] <= {0.0, 1.0} or len(values[name]) == 1
    ]


def inspection_table(inspection: Inspection) -> Table:
    """The statistics as a table for the terminal."""
    table = Table(title=Text(str(inspection.path)), show_header=False, title_justify="left")
    for name, value in manifest_facts(inspection.manifest):
        table.add_row(name, Text(value))
    table.add_section()
    table.add_row("events per user, mean", f"{inspection.lengths.mean():,.1f}")
    for quantile, length in zip(_QUANTILES, np.quantile(inspection.lengths, _QUANTILES), strict=True):
        table.add_row(f"  {_quantile_name(quantile)}", f"{length:,.0f}")
    for label, users in _length_histogram(inspection.lengths):
        share = users / len(inspection.lengths)
        table.add_row(f"  users of {label}", f"{users:>9,}  {share:6.1%} {'█' * round(30 * share)}")
    table.add_section()
    shares = behaviour_shares(inspection.manifest)
    for label, share in shares[:_MAX_BEHAVIOURS]:
        table.add_row(label, f"{'':9}  {share:6.1%} {'█' * round(30 * share)}")
    if len(shares) > _MAX_BEHAVIOURS:
        table.add_row("", f"and {len(shares) - _MAX_BEHAVIOURS} more values")
    return table


def draw_picture(inspection: Inspection, file: Path) -> Path:
    """Draw lengths, behaviours, time and popularity into a PNG file. Returns the file.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    manifest = inspection.manifest
    figure.suptitle(
        f"{manifest.source}: {manifest.num_users:,} users, {manifest.num_items:,} items, "
        f"{manifest.num_events:,} events"
    )
    _draw_lengths(axes[0, 0], inspection.lengths)
    _draw_behaviours(axes[0, 1], manifest)
    _draw_times(axes[1, 0], inspection)
    _draw_popularity(axes[1, 1], inspection.item_counts)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    with user_error_of_disk(file):
        figure.savefig(file, dpi=130, format="png")
    return file


def _length_histogram(lengths: NDArray[np.int64]) -> list[tuple[str, int]]:
    """Users in bins of lengths ``2^k`` to ``2^(k+1) - 1``, as (label, users); empty bins are omitted."""
    counts = np.bincount(np.log2(lengths).astype(np.int64))
    return [
        (f"{2**k}" if k == 0 else f"{2**k} to {2 ** (k + 1) - 1}", int(users))
        for k, users in enumerate(counts)
        if users
    ]


def _quantile_name(quantile: float) -> str:
    return {0.0: "least", 0.5: "median", 1.0: "most"}.get(quantile, f"{quantile:.0%} have at most")


def _draw_lengths(axis: Axes, lengths: NDArray[np.int64]) -> None:
    # Edges between whole numbers, so that short histories leave no gaps.
    edges = np.unique(np.rint(np.geomspace(max(lengths.min(), 1), lengths.max() + 1, 40))) - 0.5
    axis.hist(lengths, bins=edges.tolist(), color=_COLOUR)
    axis.axvline(float(np.median(lengths)), color="black", linewidth=1, linestyle="--", label="median")
    axis.set(xscale="log", xlabel="events of a user", ylabel="users", title="Length of histories")
    axis.legend(frameon=False)


def _draw_behaviours(axis: Axes, manifest: Manifest) -> None:
    labels, shares = zip(*behaviour_shares(manifest)[:_MAX_BEHAVIOURS], strict=True)
    axis.barh(labels, [100 * share for share in shares], color=_COLOUR)
    axis.invert_yaxis()
    axis.set(xlabel="% of events", title="Behaviours")


def _draw_times(axis: Axes, inspection: Inspection) -> None:
    from matplotlib.dates import date2num

    edges, unit = inspection.time_edges, "seconds"
    try:
        edges = date2num([datetime.fromtimestamp(edge, tz=timezone.utc) for edge in edges])
        unit = "UTC"
        axis.xaxis_date()
        axis.tick_params(axis="x", rotation=30)
    except (ValueError, OverflowError, OSError):
        # Times of user-provided data need not count from 1970.
        pass
    axis.stairs(inspection.time_counts, edges, fill=True, color=_COLOUR)
    axis.set(ylabel="events", title=f"Events over time ({unit})")
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set_ylim(bottom=0)


def _draw_popularity(axis: Axes, counts: NDArray[np.int64]) -> None:
    popularity = np.sort(counts)[::-1]
    popularity = popularity[popularity > 0]
    axis.plot(np.arange(1, len(popularity) + 1), popularity, color=_COLOUR)
    axis.set(
        xscale="log", yscale="log", xlabel="item, by popularity", ylabel="training events", title="Popularity"
    )

"""Summary of a data set that was just made, as data and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.table import Table
from rich.text import Text

from unigrf_dist.data.manifest import FeatureRecord, Manifest
from unigrf_dist.errors import printable


@dataclass(frozen=True)
class DatasetSummary:
    """A data set that was just made.

    Attributes:
        path: folder of the data set.
        manifest: content of its ``manifest.json``.
        seconds: wall-clock time of making it.
        notes: further remarks for the user, one line each.
    """

    path: Path
    manifest: Manifest
    seconds: float
    notes: Sequence[str] = ()


def summary_table(summary: DatasetSummary) -> Table:
    """The summary as a table for the terminal."""
    title = Text(f"{printable(str(summary.path))}, made in {summary.seconds:.1f} s")
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in manifest_facts(summary.manifest):
        # Raw rows may look like markup.
        table.add_row(name, Text(value))
    for note in summary.notes:
        table.add_row("note", Text(printable(note)))
    return table


def manifest_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """The main facts of a manifest as (name, value) for the terminal."""
    facts = [
        ("source", manifest.source),
        ("users", f"{manifest.num_users:,}"),
        ("items", f"{manifest.num_items:,}"),
        ("events", f"{manifest.num_events:,}"),
        ("  of them for training", f"{manifest.num_training_events:,}"),
        ("time span", f"{_day(manifest.first_timestamp)} to {_day(manifest.last_timestamp)} (UTC)"),
        ("shards", f"{len(manifest.shards):,}"),
    ]
    for number, day in enumerate(manifest.days, start=1):
        folded = ", folded" if day.folded else ""
        span = f"{_day(day.first_timestamp)} to {_day(day.last_timestamp)}{folded}"
        users = f"{day.num_known_users + day.num_users:,} users, {day.num_users:,} of them new"
        facts.append(
            (f"  day {number}", f"{day.num_events:,} events of {users}, {day.num_items:,} new items; {span}")
        )
    facts += [(f"{feature.owner} feature", _described(feature, manifest)) for feature in manifest.features]
    if manifest.num_training_only_users:
        facts.append(("users too short to hold out", f"{manifest.num_training_only_users:,} (training only)"))
    if manifest.num_unsorted_users:
        facts.append(("users sorted by time", f"{manifest.num_unsorted_users:,} (raw order was another)"))
    if manifest.num_repeats is not None:
        facts.append(("repeats of an item", f"{manifest.num_repeats / manifest.num_events:.1%} of the events"))
    facts += [("warning", warning.message) for warning in manifest.warnings]
    if manifest.skipped_rows.count:
        facts.append(("raw rows skipped", f"{manifest.skipped_rows.count:,}"))
        facts += [("", line) for line in manifest.skipped_rows.sample]
    return facts


def _described(feature: FeatureRecord, manifest: Manifest) -> str:
    owners = manifest.num_items if feature.owner == "item" else manifest.num_users
    several = ", several each" if feature.multi_valued else ""
    missing = f", missing for {feature.num_missing / owners:.1%}" if feature.num_missing else ""
    return f"{feature.name}: {feature.cardinality - 1:,} values{several}{missing}"


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        # Times of user-provided data need not count from 1970.
        return f"{seconds} s"

"""What making a data set came to, and how to show it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.table import Table
from rich.text import Text

from unigrf_dist.data.manifest import Manifest


@dataclass(frozen=True)
class DatasetSummary:
    """A data set that was just made.

    Attributes:
        path: its folder.
        manifest: as written there.
        seconds: it took.
    """

    path: Path
    manifest: Manifest
    seconds: float


def summary_table(summary: DatasetSummary) -> Table:
    """The summary as a table for the terminal."""
    title = Text(f"{summary.path}, made in {summary.seconds:.1f} s")
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in manifest_facts(summary.manifest):
        # Raw rows may look like markup.
        table.add_row(name, Text(value))
    return table


def manifest_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What a reader wants to know of a manifest, as (name, value) in words."""
    facts = [
        ("source", manifest.source),
        ("users", f"{manifest.num_users:,}"),
        ("items", f"{manifest.num_items:,}"),
        ("events", f"{manifest.num_events:,}"),
        ("  of them for training", f"{manifest.num_training_events:,}"),
        ("time span", f"{_day(manifest.first_timestamp)} to {_day(manifest.last_timestamp)} (UTC)"),
        ("shards", f"{len(manifest.shards):,}"),
    ]
    if manifest.num_training_only_users:
        facts.append(("users too short to hold out", f"{manifest.num_training_only_users:,} (training only)"))
    if manifest.num_unsorted_users:
        facts.append(("users sorted by time", f"{manifest.num_unsorted_users:,} (raw order was another)"))
    if manifest.skipped_rows.count:
        facts.append(("raw rows skipped", f"{manifest.skipped_rows.count:,}"))
        facts += [("", line) for line in manifest.skipped_rows.sample]
    return facts


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        # Generic data may count time from elsewhere.
        return f"{seconds} s"

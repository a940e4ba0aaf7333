"""The events of an appended day, all of them in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from unigrf_dist.data.manifest import DataWarning, SkippedRows
from unigrf_dist.errors import printable
from unigrf_dist.prepare.buckets import make_bucket
from unigrf_dist.prepare.ingest import joined, pieces, stage_file
from unigrf_dist.prepare.plan import OnBadRow, Plan, Thinning
from unigrf_dist.prepare.progress import Progress
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.sql import ID_TYPES, count_rows
from unigrf_dist.prepare.suspicions import (
    dropped_duplicates,
    suspicion_of_skipped,
    suspicions_of_events,
    suspicious_counts,
)


def load_day(
    connection: duckdb.DuckDBPyConnection,
    sources: Sequence[Source],
    folder: Path,
    *,
    on_bad_row: OnBadRow,
    max_skipped: float | None,
    drop_duplicates: bool,
    report: Progress,
) -> tuple[SkippedRows, list[DataWarning]]:
    """Make the table ``events`` of all good rows, with the columns of ``stage_file``.

    Args:
        connection: database without that table.
        sources: raw files; ids and behaviours of all are alike.
        folder: folder for temporary files; it exists.
        on_bad_row, max_skipped, drop_duplicates: see ``prepare``.
        report: called as the work goes on.

    Returns:
        the rows that were skipped, and what is suspicious.

    Raises:
        UserError: see ``stage_file`` and ``suspicion_of_skipped``.
    """
    # A day is small: its users make one bucket.
    plan = Plan(sources, on_bad_row, Thinning(drop_duplicates=drop_duplicates), num_buckets=1)
    source, num_good = plan.source, 0
    skipped: list[SkippedRows] = []
    for number, (_, file) in enumerate(plan.files):
        report(f"read {printable(file.name)}", number / len(plan.files))
        good, bad = stage_file(connection, plan, number, _place(folder, number))
        num_good += good
        skipped.append(bad)
    warnings = suspicion_of_skipped(joined(skipped), num_good, max_skipped)
    files = [piece for number in range(len(plan.files)) for piece in pieces(_place(folder, number), 0)]
    values = "".join(f", value_{n}" for n in range(len(source.value_types)))
    if files:
        make_bucket(connection, plan, files)
        chosen = f"SELECT user_key, item_key, time{values}, position FROM bucket"
        connection.execute(f"CREATE TABLE events AS {chosen}")
    else:
        types = "".join(f", value_{n} {kind}" for n, kind in enumerate(source.value_types))
        ids = f"user_key {ID_TYPES[source.user_type]}, item_key {ID_TYPES[source.item_type]}"
        connection.execute(f"CREATE TABLE events ({ids}, time BIGINT{types}, position BIGINT)")
    [counts] = connection.execute(f"SELECT {', '.join(suspicious_counts(source))} FROM events").fetchall()
    dropped = dropped_duplicates(num_good - count_rows(connection, "events"))
    return joined(skipped), [*warnings, *dropped, *suspicions_of_events(source, counts)]


def _place(folder: Path, number: int) -> Path:
    return folder / f"file-{number:05d}"

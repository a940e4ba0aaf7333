"""Raw files into one DuckDB table of checked events, out of core."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from unigrf_dist.data.manifest import SkippedRows
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.progress import Progress
from unigrf_dist.prepare.raw_checks import RawColumn, problem_of
from unigrf_dist.prepare.raw_csv import physical_lines
from unigrf_dist.prepare.scan import Scan, scan_file, user_error_of_reading
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.sql import ID_TYPES, count_rows, sql_name

OnBadRow = Literal["error", "skip"]

_MAX_SAMPLE = 10
# More than the rows of any file; keeps positions of different files apart.
_FILE_STRIDE = 1 << 40
_IS_BAD = "problem IS NOT NULL"


@dataclass(frozen=True)
class _BadRows:
    """Bad rows of one file.

    Attributes:
        count: number of them.
        first: (line or row, message) of the first ones.
    """

    count: int
    first: list[tuple[int, str]]


def load_events(
    connection: duckdb.DuckDBPyConnection, source: Source, *, on_bad_row: OnBadRow, progress: Progress
) -> SkippedRows:
    """Make the table ``events(user_key, item_key, time, value_0 …, position, problem)`` of all good rows.

    ``time`` is in microseconds; ``position`` grows in the order of files and rows; ``problem`` is NULL.

    Args:
        connection: database without that table.
        source: files to read.
        on_bad_row: whether a bad row ends the loading or is skipped.
        progress: gets the name of each file.

    Returns:
        the rows that were skipped (none with ``on_bad_row="error"``).

    Raises:
        UserError: a file cannot be read or lacks a column, or a row is bad and ``on_bad_row`` is ``error``.
    """
    user, item = ID_TYPES[source.user_type], ID_TYPES[source.item_type]
    values = "".join(f", value_{n} DOUBLE" for n in range(len(source.behaviours)))
    connection.execute(
        f"CREATE TABLE events (user_key {user}, item_key {item}, time BIGINT{values}, "
        "position BIGINT, problem VARCHAR)"
    )
    count = 0
    sample: list[str] = []
    for number, file in enumerate(source.files):
        progress(f"read {file.name}", number / len(source.files))
        bad = _load_file(connection, source, file, number)
        unit = "row" if source.layout == "parquet" else "line"
        messages = [f"{file}, {unit} {line}: {problem}" for line, problem in bad.first]
        if messages and on_bad_row == "error":
            more = f" ({bad.count - 1:,} more in this file)" if bad.count > 1 else ""
            raise UserError(f"{messages[0]}{more}; fix it, or have bad rows skipped (--on-bad-row skip)")
        count, sample = count + bad.count, (sample + messages)[:_MAX_SAMPLE]
    return SkippedRows(count=count, sample=sample)


def _load_file(connection: duckdb.DuckDBPyConnection, source: Source, file: Path, number: int) -> _BadRows:
    with user_error_of_reading(file):
        _insert(connection, source, scan_file(connection, file, source, keep_malformed=True), number)
    bad = _take_bad_rows(connection, number)
    return _with_rejected_lines(connection, source, file, bad) if source.layout == "csv" else bad


def _insert(connection: duckdb.DuckDBPyConnection, source: Source, scan: Scan, number: int) -> None:
    def column(name: str) -> RawColumn:
        return RawColumn(name, sql_name(name), scan.types[name])

    user, item, time = column(source.user), column(source.item), column(source.timestamp)
    values = [column(name) for name in source.behaviours.values()]
    checked = [
        user.as_id(source.user_type),
        item.as_id(source.item_type),
        time.as_time(source.time_unit),
        *(value.as_number(source.limits) for value in values),
    ]
    chosen = ", ".join(check.value for check in checked)
    connection.execute(
        f"INSERT INTO events SELECT {chosen}, {number * _FILE_STRIDE} + row, {problem_of(checked)} "
        f"FROM (SELECT row_number() OVER () AS row, {', '.join(map(sql_name, source.columns))} FROM {scan.sql})"
    )


def _take_bad_rows(connection: duckdb.DuckDBPyConnection, number: int) -> _BadRows:
    """Remove the bad rows of file ``number``, the last one inserted, from the table."""
    first = connection.execute(
        f"SELECT position - {number * _FILE_STRIDE}, problem FROM events WHERE {_IS_BAD} "
        f"ORDER BY position LIMIT {_MAX_SAMPLE}"
    ).fetchall()
    count = count_rows(connection, f"events WHERE {_IS_BAD}") if first else 0
    if count:
        connection.execute(f"DELETE FROM events WHERE {_IS_BAD}")
    return _BadRows(count, first)


def _with_rejected_lines(
    connection: duckdb.DuckDBPyConnection, source: Source, file: Path, bad: _BadRows
) -> _BadRows:
    """The bad rows by line instead of row, together with the lines that DuckDB could not even split."""
    rejected = connection.execute(
        "SELECT line, any_value(error_message), any_value(csv_line) FROM reject_errors GROUP BY line ORDER BY line"
    ).fetchall()
    connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    lines = physical_lines(file, [row for row, _ in bad.first], {line for line, *_ in rejected}, source)
    malformed = [
        (line, f"{message.rstrip('.')}: {text.strip()[:60]!r}") for line, message, text in rejected[:_MAX_SAMPLE]
    ]
    by_line = [(line, problem) for line, (_, problem) in zip(lines, bad.first, strict=True)]
    return _BadRows(bad.count + len(rejected), sorted(by_line + malformed)[:_MAX_SAMPLE])

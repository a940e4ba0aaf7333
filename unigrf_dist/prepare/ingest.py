"""Raw files into one DuckDB table of checked events, out of core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from unigrf_dist.data.manifest import SkippedRows
from unigrf_dist.errors import UserError, printable
from unigrf_dist.prepare.progress import Progress
from unigrf_dist.prepare.raw_checks import problem_of
from unigrf_dist.prepare.raw_csv import Located, locate
from unigrf_dist.prepare.scan import Scan, read_scan, user_error_of_reading
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.sql import ID_TYPES, count_rows

OnBadRow = Literal["error", "skip"]

_MAX_SAMPLE = 10
# More than the rows of any file; keeps positions of different files apart.
_FILE_STRIDE = 1 << 40
_IS_BAD = "problem IS NOT NULL"
# What DuckDB finds where a quote is open.
_OPEN_QUOTE = ("UNQUOTED VALUE", "LINE SIZE OVER MAXIMUM")


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
    connection: duckdb.DuckDBPyConnection, sources: Sequence[Source], *, on_bad_row: OnBadRow, progress: Progress
) -> SkippedRows:
    """Make the table ``events(user_key, item_key, time, value_0 …, position, problem)`` of all good rows.

    ``time`` is in microseconds; ``position`` grows in the order of sources, files and rows; ``problem`` is NULL;
    the values are those of ``Source.value_types``.

    Args:
        connection: database without that table.
        sources: files to read; ids and behaviours of all are alike.
        on_bad_row: whether a bad row ends the loading or is skipped.
        progress: gets the name of each file.

    Returns:
        the rows that were skipped (none with ``on_bad_row="error"``).

    Raises:
        UserError: a file cannot be read or lacks a column, or a row is bad and ``on_bad_row`` is ``error``; or a
            quote in it is never closed, so that nobody knows how many rows are bad.
    """
    user, item = ID_TYPES[sources[0].user_type], ID_TYPES[sources[0].item_type]
    values = "".join(f", value_{n} {kind}" for n, kind in enumerate(sources[0].value_types))
    connection.execute(
        f"CREATE TABLE events (user_key {user}, item_key {item}, time BIGINT{values}, "
        "position BIGINT, problem VARCHAR)"
    )
    files = [(source, file) for source in sources for file in source.files]
    count = 0
    sample: list[str] = []
    for number, (source, file) in enumerate(files):
        progress(f"read {printable(file.name)}", number / len(files))
        bad = _load_file(connection, source, file, number)
        unit = "row" if source.layout == "parquet" else "line"
        messages = [printable(f"{file}, {unit} {line}: {problem}") for line, problem in bad.first]
        if messages and on_bad_row == "error":
            more = f" ({bad.count - 1:,} more in this file)" if bad.count > 1 else ""
            raise UserError(f"{messages[0]}{more}; fix it, or have bad rows skipped (--on-bad-row skip)")
        count, sample = count + bad.count, (sample + messages)[:_MAX_SAMPLE]
    return SkippedRows(count=count, sample=sample)


def _load_file(connection: duckdb.DuckDBPyConnection, source: Source, file: Path, number: int) -> _BadRows:
    with user_error_of_reading(file):
        read_scan(
            connection,
            file,
            source,
            lambda scan: _insert(connection, source, scan, number),
            keep_malformed=True,
        )
    bad = _take_bad_rows(connection, number)
    if source.layout == "csv":
        return _with_rejected_lines(connection, source, file, bad)
    if source.layout == "jsonl" and bad.count:
        return _BadRows(bad.count, _by_line(bad, locate(file, [row for row, _ in bad.first], set(), source)))
    return bad


def _insert(connection: duckdb.DuckDBPyConnection, source: Source, scan: Scan, number: int) -> None:
    columns = scan.columns
    checked = [
        columns[source.user].as_id(source.user_type),
        columns[source.item].as_id(source.item_type),
        columns[source.timestamp].as_time(source.time_unit),
    ]
    if source.event_type is not None:
        checked.append(columns[source.event_type].as_event_type())
    for name, column in source.behaviours.items():
        if name in source.buckets:
            checked.append(columns[column].in_buckets(source.buckets[name]))
        else:
            checked.append(columns[column].as_number(source.limits, may_be_missing=source.may_be_missing))
    named = [(f"v{place}", value) for place, value in enumerate(checked)]
    chosen = ", ".join(name for name, _ in named)
    computed = ", ".join(f"{value.value} AS {name}" for name, value in named)
    connection.execute(
        f"INSERT INTO events SELECT {chosen}, {number * _FILE_STRIDE} + row, {problem_of(named)} "
        f"FROM (SELECT *, {computed} FROM {scan.sql})"
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
    """The bad rows by line instead of row, together with the records that DuckDB could not even split."""
    rejected = connection.execute(
        "SELECT line, arg_min(error_message, column_idx), any_value(csv_line), list(error_type) "
        "FROM reject_errors GROUP BY line ORDER BY line"
    ).fetchall()
    connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    if not rejected and not bad.count:
        return bad
    located = locate(file, [row for row, _ in bad.first], {record for record, *_ in rejected}, source)
    malformed = []
    for record, message, text, kinds in rejected:
        begun, ended = located.rejected.get(record, (record, record))
        if ended > begun and any(kind in _OPEN_QUOTE for kind in kinds):
            raise UserError(
                f"{file}, line {begun}: a quote that begins here is not closed as it should be up to line "
                f"{ended}; fix it, or have quotes read as any other character (--no-quotes)"
            )
        malformed.append((begun, f"{message.rstrip('.')}: {text.strip()[:60]!r}"))
    return _BadRows(bad.count + len(rejected), sorted(_by_line(bad, located) + malformed)[:_MAX_SAMPLE])


def _by_line(bad: _BadRows, located: Located) -> list[tuple[int, str]]:
    """The bad rows by line; by row where the line was not found."""
    lines = located.lines + [row for row, _ in bad.first[len(located.lines) :]]
    return [(line, problem) for line, (_, problem) in zip(lines, bad.first, strict=True)]

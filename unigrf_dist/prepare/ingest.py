"""Raw files into one DuckDB table of checked events, out of core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.data.manifest import SkippedRows
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.raw_checks import RawColumn, problem_of
from unigrf_dist.prepare.raw_csv import check_columns, csv_columns, physical_lines
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.workspace import disk_is_full

OnBadRow = Literal["error", "skip"]
Progress = Callable[[str, float], None]

_SAMPLE = 10
# Rows of one file; keeps positions of different files apart.
_FILE_STRIDE = 1 << 40
DUCK_TYPES = {"int64": "BIGINT", "string": "VARCHAR"}


@dataclass
class _BadRows:
    """Bad rows of one file: their number, and the first ones as (line or row, what is wrong)."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)


def load_events(
    connection: duckdb.DuckDBPyConnection, source: Source, *, on_bad_row: OnBadRow, progress: Progress
) -> SkippedRows:
    """Make the table ``events(user_key, item_key, time, value_0 …, position)`` of all good rows.

    ``time`` is in microseconds; ``position`` grows in the order of files and rows.

    Returns:
        the rows that were left out (none with ``on_bad_row="error"``).

    Raises:
        UserError: a file cannot be read or lacks a column, or a row is bad and ``on_bad_row`` is ``error``.
    """
    user, item = DUCK_TYPES[source.user_type], DUCK_TYPES[source.item_type]
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
        told = [f"{file}, {unit} {line}: {what}" for line, what in bad.first]
        if told and on_bad_row == "error":
            more = f" ({bad.count - 1:,} more in this file)" if bad.count > 1 else ""
            raise UserError(f"{told[0]}{more}; mend it, or have bad rows skipped (--on-bad-row skip)")
        count, sample = count + bad.count, (sample + told)[:_SAMPLE]
    return SkippedRows(count=count, sample=sample)


def _load_file(connection: duckdb.DuckDBPyConnection, source: Source, file: Path, number: int) -> _BadRows:
    try:
        scan, types = _scan(connection, source, file)
        _insert(connection, source, scan, types, number)
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowException) as error:
        if isinstance(error, duckdb.Error) and disk_is_full(error):
            raise
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())[:300]}") from error
    return _collect_bad(connection, source, file, number)


def _scan(connection: duckdb.DuckDBPyConnection, source: Source, file: Path) -> tuple[str, dict[str, str]]:
    """The table function that reads ``file``, and the DuckDB type of every column that is needed."""
    path = sql_text(str(file))
    try:
        file.open("rb").close()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    texts = dict.fromkeys(source.columns, "VARCHAR")
    if source.layout == "csv":
        columns = ", ".join(f"{sql_text(name)}: 'VARCHAR'" for name in csv_columns(source, file))
        quote = "'\"'" if source.quoted else "''"
        return (
            f"read_csv({path}, columns={{{columns}}}, delim={sql_text(source.delimiter)}, quote={quote}, "
            f"escape={quote}, header={source.header is None}, auto_detect=false, ignore_errors=true, "
            "store_rejects=true)"
        ), texts
    if source.layout == "jsonl":
        columns = ", ".join(f"{sql_text(name)}: 'VARCHAR'" for name in source.columns)
        # Lines that are no JSON come as rows of nulls, so that rows go on counting lines.
        return (
            f"read_json({path}, format='newline_delimited', columns={{{columns}}}, ignore_errors=true, "
            "maximum_object_size=67108864)"
        ), texts
    check_columns(file, pq.ParquetFile(file).schema_arrow.names, source.columns)
    described = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({path})").fetchall()
    return f"read_parquet({path})", {name: kind for name, kind, *_ in described if name in texts}


def _insert(
    connection: duckdb.DuckDBPyConnection, source: Source, scan: str, types: dict[str, str], number: int
) -> None:
    def column(name: str) -> RawColumn:
        return RawColumn(name, sql_name(name), types[name])

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
        f"FROM (SELECT row_number() OVER () AS row, {', '.join(map(sql_name, source.columns))} FROM {scan})"
    )


def _collect_bad(connection: duckdb.DuckDBPyConnection, source: Source, file: Path, number: int) -> _BadRows:
    rows = connection.execute(
        f"SELECT position - {number * _FILE_STRIDE}, problem FROM events WHERE problem IS NOT NULL "
        f"ORDER BY position LIMIT {_SAMPLE}"
    ).fetchall()
    bad = _BadRows(_scalar(connection, "SELECT count(*) FROM events WHERE problem IS NOT NULL"), rows)
    if bad.count:
        connection.execute("DELETE FROM events WHERE problem IS NOT NULL")
    if source.layout != "csv":
        return bad
    rejected = connection.execute(
        "SELECT line, any_value(error_message), any_value(csv_line) FROM reject_errors GROUP BY line ORDER BY line"
    ).fetchall()
    connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    records = {line for line, *_ in rejected}
    lines = physical_lines(file, [row for row, _ in rows], records, source)
    malformed = [
        (line, f"{message.rstrip('.')}: {text.strip()[:60]!r}") for line, message, text in rejected[:_SAMPLE]
    ]
    told = [(line, problem) for line, (_, problem) in zip(lines, rows, strict=True)]
    return _BadRows(bad.count + len(rejected), sorted(told + malformed)[:_SAMPLE])


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def sql_text(value: str) -> str:
    """A string as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def sql_name(value: str) -> str:
    """A column's name as SQL."""
    return '"' + value.replace('"', '""') + '"'

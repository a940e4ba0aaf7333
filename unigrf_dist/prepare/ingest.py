"""Raw files into checked events by buckets of their users, out of core."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from unigrf_dist.data.manifest import SkippedRows
from unigrf_dist.errors import UserError, printable
from unigrf_dist.prepare.plan import Plan
from unigrf_dist.prepare.raw_checks import problem_of
from unigrf_dist.prepare.raw_csv import Located, locate
from unigrf_dist.prepare.scan import Scan, read_scan, user_error_of_reading
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.sql import ID_TYPES, count_rows, parquet_rows, sql_text

_MAX_SAMPLE = 10
# More than the rows of any file; keeps positions of different files apart.
_FILE_STRIDE = 1 << 40
# Rows that a thread keeps before it writes them: many buckets need many, or their row groups are tiny.
_LEAST_ROWS_IN_MEMORY, _MOST_ROWS_IN_MEMORY, _ROWS_PER_PIECE = 1 << 19, 1 << 20, 1 << 13
# Where bad rows go.
_BAD = -1
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


def stage_file(
    connection: duckdb.DuckDBPyConnection, plan: Plan, number: int, folder: Path
) -> tuple[int, SkippedRows]:
    """Check the rows of a raw file and write the good ones by bucket of their user, in Parquet.

    Bucket ``b`` becomes ``folder/bucket=b/*.parquet`` with the columns ``user_key``, ``item_key``, ``time`` in
    microseconds, ``value_0 …`` as in ``Source.value_types``, and ``position``, which grows with files and rows.

    Args:
        connection: database for the work.
        plan: the preparation.
        number: number of the file among those of the plan.
        folder: folder to write into; it exists.

    Returns:
        the number of good rows, and the rows that were skipped (none with ``on_bad_row="error"``).

    Raises:
        UserError: the file cannot be read or lacks a column, or a row is bad and ``on_bad_row`` is ``error``; or a
            quote in it is never closed, so that nobody knows how many rows are bad.
    """
    source, file = plan.files[number]
    with user_error_of_reading(file):
        read_scan(
            connection,
            file,
            source,
            lambda scan: _write_by_bucket(connection, plan, scan, number, folder),
            keep_malformed=True,
        )
    bad = _bad_rows(connection, number, folder)
    good = sum(pq.read_metadata(piece).num_rows for piece in pieces(folder, "*"))
    if source.layout == "csv":
        bad = _with_rejected_lines(connection, source, file, bad)
    elif source.layout == "jsonl" and bad.count:
        bad = _BadRows(bad.count, _by_line(bad, locate(file, [row for row, _ in bad.first], set(), source)))
    unit = "row" if source.layout == "parquet" else "line"
    messages = [printable(f"{file}, {unit} {line}: {problem}") for line, problem in bad.first]
    if messages and plan.on_bad_row == "error":
        more = f" ({bad.count - 1:,} more in this file)" if bad.count > 1 else ""
        raise UserError(f"{messages[0]}{more}; fix it, or have bad rows skipped (--on-bad-row skip)")
    return good, SkippedRows(count=bad.count, sample=messages)


def joined(skipped: Sequence[SkippedRows]) -> SkippedRows:
    """Rows of several files that were skipped."""
    sample = [message for each in skipped for message in each.sample]
    return SkippedRows(count=sum(each.count for each in skipped), sample=sample[:_MAX_SAMPLE])


def pieces(folder: Path, bucket: int | str) -> list[Path]:
    """Files of a bucket (``*`` for all) that ``stage_file`` has written into ``folder``."""
    return sorted(folder.glob(f"bucket={bucket}/*.parquet"))


def _write_by_bucket(
    connection: duckdb.DuckDBPyConnection, plan: Plan, scan: Scan, number: int, folder: Path
) -> None:
    source, columns = plan.files[number][0], scan.columns
    checked = {
        "user_key": columns[source.user].as_id(source.user_type),
        "item_key": columns[source.item].as_id(source.item_type),
        "time": columns[source.timestamp].as_time(source.time_unit),
    }
    kinds = [ID_TYPES[source.user_type], ID_TYPES[source.item_type], "BIGINT", *source.value_types]
    values = []
    if source.event_type is not None:
        values.append(columns[source.event_type].as_event_type())
    for name, column in source.behaviours.items():
        if name in source.buckets:
            values.append(columns[column].in_buckets(source.buckets[name]))
        else:
            values.append(columns[column].as_number(source.limits, may_be_missing=source.may_be_missing))
    checked |= {f"value_{n}": value for n, value in enumerate(values)}
    computed = ", ".join(
        f"CAST({value.value} AS {kind}) AS {name}"
        for (name, value), kind in zip(checked.items(), kinds, strict=True)
    )
    chosen = f"{', '.join(checked)}, {number * _FILE_STRIDE} + row AS position"
    # A copy of an earlier attempt to read the file may have been begun.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    connection.execute(f"SET partitioned_write_max_open_files = {plan.num_buckets + 1}")
    threshold = min(max(_LEAST_ROWS_IN_MEMORY, _ROWS_PER_PIECE * plan.num_buckets), _MOST_ROWS_IN_MEMORY)
    connection.execute(f"SET partitioned_write_flush_threshold = {threshold}")
    connection.execute(
        f"COPY (SELECT {chosen}, problem, CASE WHEN {_IS_BAD} THEN {_BAD} "
        f"ELSE (hash(user_key) % {plan.num_buckets})::INTEGER END AS bucket "
        f"FROM (SELECT *, {problem_of(list(checked.items()))} AS problem "
        f"FROM (SELECT *, {computed} FROM {scan.sql}))"
        f") TO {sql_text(str(folder.absolute()))} (FORMAT parquet, PARTITION_BY (bucket), OVERWRITE_OR_IGNORE, "
        # Version 2 encodes differences: half the size of version 1, and less work. A dictionary of ids costs more
        # time than it saves space.
        "PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL 1, DICTIONARY_SIZE_LIMIT 256)"
    )


def _bad_rows(connection: duckdb.DuckDBPyConnection, number: int, folder: Path) -> _BadRows:
    """Remove the bad rows of file ``number`` from what was written."""
    bad = pieces(folder, _BAD)
    if not bad:
        return _BadRows(0, [])
    first = connection.execute(
        f"SELECT position - {number * _FILE_STRIDE}, problem FROM {parquet_rows(bad)} "
        f"ORDER BY position LIMIT {_MAX_SAMPLE}"
    ).fetchall()
    count = count_rows(connection, parquet_rows(bad))
    shutil.rmtree(folder / f"bucket={_BAD}")
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

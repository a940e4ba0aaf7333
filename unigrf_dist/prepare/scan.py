"""DuckDB's scan of a raw file: from how it is written to rows with its needed columns.

Names of columns never reach SQL: a column is known by its place in the file, and is called ``raw_0``, ``raw_1``.
"""

from __future__ import annotations

import codecs
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.raw_checks import RawColumn
from unigrf_dist.prepare.raw_csv import check_columns, has_mixed_line_ends, open_text, read_header
from unigrf_dist.prepare.source import RawTable
from unigrf_dist.prepare.sql import sql_path, sql_text
from unigrf_dist.prepare.workspace import disk_is_full, folder_of

_MAX_JSON_OBJECT_BYTES = 64 << 20
_MAX_MESSAGE = 300
# What Hive writes for a missing value.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Scan:
    """How DuckDB reads a file.

    Attributes:
        sql: rows in the order of the file, to be used after FROM: ``row``, which counts from 1, and the columns.
        columns: every column that is read, by its name in the file.
    """

    sql: str
    columns: dict[str, RawColumn]


def read_scan(
    connection: duckdb.DuckDBPyConnection,
    file: Path,
    table: RawTable,
    read: Callable[[Scan], None],
    *,
    keep_malformed: bool = False,
) -> None:
    """Scan one file, and once more where its lines end in several ways, which DuckDB reads in a copy only.

    Args:
        connection, file, table, keep_malformed: see ``scan_file``.
        read: executes one statement over the scan; a statement that fails must leave nothing behind.

    Raises:
        UserError: see ``scan_file``.
    """
    try:
        read(scan_file(connection, file, table, keep_malformed=keep_malformed))
    except duckdb.InvalidInputException:
        if table.layout != "csv" or not has_mixed_line_ends(file, table.encoding):
            raise
        connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
        read(scan_file(connection, file, table, keep_malformed=keep_malformed, even_line_ends=True))


def scan_file(
    connection: duckdb.DuckDBPyConnection,
    file: Path,
    table: RawTable,
    *,
    keep_malformed: bool = False,
    even_line_ends: bool = False,
) -> Scan:
    """The scan of one file.

    Args:
        connection: database that will read it.
        file: the file.
        table: how the file is written and which of its columns are needed.
        keep_malformed: whether reading goes on after a malformed row. DuckDB then lists such rows of a csv file in
            its table ``reject_errors``; in a jsonl file they become rows of nulls, so that row numbers still count
            lines.
        even_line_ends: csv only; whether a copy is read whose lines all end in LF.

    Raises:
        UserError: the file cannot be opened or lacks a column.
    """
    try:
        str(file).encode()
        file.open("rb").close()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise UserError(f"{file}: its name is no UTF-8; rename it") from error
    if table.layout == "csv":
        rows, found = _csv_rows(connection, file, table, keep_malformed, even_line_ends)
    elif table.layout == "jsonl":
        rows, found = _jsonl_rows(file, table, keep_malformed)
    else:
        rows, found = _parquet_rows(connection, file, table)
    found += [(sql_text_or_null(partition_value(file, name)), "VARCHAR") for name in table.partitions]
    chosen = "".join(f", {sql} AS raw_{number}" for number, (sql, _) in enumerate(found))
    names = [*table.file_columns, *table.partitions]
    return Scan(
        f"(SELECT row_number() OVER () AS row{chosen} FROM {rows})",
        {
            name: RawColumn(file, name, f"raw_{number}", kind)
            for number, (name, (_, kind)) in enumerate(zip(names, found, strict=True))
        },
    )


def partition_value(file: Path, name: str) -> str | None:
    """Value of ``NAME=VALUE`` among the folders of ``file``, the innermost one; None for Hive's missing value.

    Raises:
        UserError: no folder is called so.
    """
    for folder in reversed(file.absolute().parent.parts):
        key, sign, value = folder.partition("=")
        if sign and unquote(key) == name:
            return None if value == _HIVE_NULL else unquote(value)
    raise UserError(f"{file}: lies in no folder {name}=VALUE; leave out --partition {name}")


def sql_text_or_null(value: str | None) -> str:
    """A string literal, or a missing string."""
    return "NULL::VARCHAR" if value is None else sql_text(value)


@contextmanager
def user_error_of_reading(file: Path) -> Iterator[None]:
    """Turn DuckDB's and Arrow's complaints about the content of ``file`` into a UserError.

    A full disk and exhausted memory are not the file's fault and pass unchanged.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowException) as error:
        if isinstance(error, duckdb.Error) and disk_is_full(error):
            raise
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())[:_MAX_MESSAGE]}") from error


def _csv_rows(
    connection: duckdb.DuckDBPyConnection,
    file: Path,
    table: RawTable,
    keep_malformed: bool,
    even_line_ends: bool,
) -> tuple[str, list[tuple[str, str]]]:
    header = read_header(table, file)
    quote = "'\"'" if table.quoted else "''"
    rejects = "ignore_errors=true, store_rejects=true, " if keep_malformed else ""
    skip = f"skip={header.skipped_lines}, " if header.skipped_lines and table.header is None else ""
    path, encoding = _readable(connection, file, table.encoding, even_line_ends)
    # All columns are text: values are checked and cast afterwards, so that a bad one can be quoted in an error.
    columns = ", ".join(f"c{place}: 'VARCHAR'" for place in range(len(header.columns)))
    rows = (
        f"read_csv({sql_path(path)}, columns={{{columns}}}, delim={sql_text(table.delimiter_of(file))}, "
        f"quote={quote}, escape={quote}, header={table.header is None}, auto_detect=false, {skip}{rejects}"
        f"hive_partitioning=false, encoding={sql_text(encoding)})"
    )
    return rows, [(f"c{header.columns.index(name)}", "VARCHAR") for name in table.file_columns]


def _jsonl_rows(file: Path, table: RawTable, keep_malformed: bool) -> tuple[str, list[tuple[str, str]]]:
    """Values as text. A JSON pointer takes any key as it is written, its case included."""
    pointers = [f"/{name.replace('~', '~0').replace('/', '~1')}" for name in table.file_columns]
    wanted = ", ".join(map(sql_text, pointers))
    rows = (
        f"(SELECT json_extract_string(json, [{wanted}]) AS found FROM read_ndjson_objects({sql_path(file)}, "
        f"ignore_errors={keep_malformed}, maximum_object_size={_MAX_JSON_OBJECT_BYTES}, hive_partitioning=false))"
    )
    return rows, [(f"found[{place}]", "VARCHAR") for place in range(1, len(pointers) + 1)]


def _parquet_rows(
    connection: duckdb.DuckDBPyConnection, file: Path, table: RawTable
) -> tuple[str, list[tuple[str, str]]]:
    # Opened here, as Arrow would take a name such as s3: for a place.
    with file.open("rb") as content:
        names: Sequence[str] = pq.read_schema(content).names
    check_columns(file, names, table.file_columns)
    rows = f"read_parquet({sql_path(file)}, hive_partitioning=false)"
    # DuckDB renames columns that differ in case alone; their places stay.
    described = connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()
    aliases = ", ".join(f"c{place}" for place in range(len(described)))
    kinds = [kind for _, kind, *_ in described]
    places = [list(names).index(name) for name in table.file_columns]
    return f"{rows} AS t({aliases})", [(f"c{place}", kinds[place]) for place in places]


def _readable(
    connection: duckdb.DuckDBPyConnection, file: Path, encoding: str, even_line_ends: bool
) -> tuple[Path, str]:
    """The file and its encoding if DuckDB reads it, else a copy in UTF-8; the next one replaces it.

    Raises:
        UserError: the file is not in that encoding.
    """
    codec = codecs.lookup(encoding).name
    if codec in ("utf-8", "ascii", "iso8859-1") and not even_line_ends:
        return file, "latin-1" if codec == "iso8859-1" else "utf-8"
    copy = folder_of(connection) / "in_utf8.csv"
    # What is not UTF-8 stays as it is in a file that should be: DuckDB names its line.
    errors = "surrogateescape" if codec in ("utf-8", "ascii") else "strict"
    try:
        with (
            open_text(file, encoding, errors=errors, newline=None if even_line_ends else "") as text,
            copy.open("w", encoding="utf-8", errors=errors, newline="") as out,
        ):
            shutil.copyfileobj(text, out, 1 << 20)
    except UnicodeError as error:
        raise UserError(
            f"{file}: is not in the encoding {encoding}: {error}; name another (--encoding)"
        ) from error
    return copy, "utf-8"

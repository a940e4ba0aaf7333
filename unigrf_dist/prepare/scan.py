"""DuckDB's scan of a raw file: the table function that reads it, its column types, its errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.raw_csv import check_columns, csv_columns
from unigrf_dist.prepare.source import RawTable
from unigrf_dist.prepare.sql import sql_text
from unigrf_dist.prepare.workspace import disk_is_full

_MAX_JSON_OBJECT_BYTES = 64 << 20
_MAX_MESSAGE = 300


@dataclass(frozen=True)
class Scan:
    """How DuckDB reads a file.

    Attributes:
        sql: table function, to be used after FROM.
        types: DuckDB type of every column that is read, by its name.
    """

    sql: str
    types: dict[str, str]


def scan_file(
    connection: duckdb.DuckDBPyConnection, file: Path, table: RawTable, *, keep_malformed: bool = False
) -> Scan:
    """The scan of one file.

    Args:
        connection: database that will read it.
        file: the file.
        table: how the file is written and which of its columns are needed.
        keep_malformed: whether reading goes on after a malformed row. DuckDB then lists such rows of a csv file in
            its table ``reject_errors``; in a jsonl file they become rows of nulls, so that row numbers still are
            line numbers.

    Raises:
        UserError: the file cannot be opened or lacks a column.
    """
    try:
        file.open("rb").close()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    if table.layout == "csv":
        return _scan_csv(file, table, keep_malformed)
    if table.layout == "jsonl":
        return _scan_jsonl(file, table, keep_malformed)
    return _scan_parquet(connection, file, table)


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


def _scan_csv(file: Path, table: RawTable, keep_malformed: bool) -> Scan:
    quote = "'\"'" if table.quoted else "''"
    rejects = "ignore_errors=true, store_rejects=true, " if keep_malformed else ""
    return Scan(
        f"read_csv({sql_text(str(file))}, columns={_as_text(csv_columns(table, file))}, "
        f"delim={sql_text(table.delimiter)}, quote={quote}, escape={quote}, header={table.header is None}, "
        f"auto_detect=false, {rejects}encoding={sql_text(table.encoding)})",
        dict.fromkeys(table.columns, "VARCHAR"),
    )


def _scan_jsonl(file: Path, table: RawTable, keep_malformed: bool) -> Scan:
    return Scan(
        f"read_json({sql_text(str(file))}, format='newline_delimited', columns={_as_text(table.columns)}, "
        f"ignore_errors={keep_malformed}, maximum_object_size={_MAX_JSON_OBJECT_BYTES})",
        dict.fromkeys(table.columns, "VARCHAR"),
    )


def _scan_parquet(connection: duckdb.DuckDBPyConnection, file: Path, table: RawTable) -> Scan:
    needed = table.columns
    check_columns(file, pq.ParquetFile(file).schema_arrow.names, needed)
    sql = f"read_parquet({sql_text(str(file))})"
    described = connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()
    return Scan(sql, {name: kind for name, kind, *_ in described if name in needed})


def _as_text(names: Iterable[str]) -> str:
    """All columns as text: values are checked and cast afterwards, so that a bad one can be quoted in an error."""
    return "{" + ", ".join(f"{sql_text(name)}: 'VARCHAR'" for name in names) + "}"

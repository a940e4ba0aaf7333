"""Pieces of SQL for DuckDB: quoting of names and paths, types of raw ids, counts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import duckdb

from unigrf_dist.data.manifest import IdType

ID_TYPES: dict[IdType, str] = {"int64": "BIGINT", "string": "VARCHAR"}


def sql_text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def sql_path(file: Path) -> str:
    """A literal that stands for exactly one local file.

    DuckDB reads a path as a pattern, so that each of its signs stands in brackets; an absolute path keeps it from
    taking ``~`` or ``s3:`` for a place.
    """
    return sql_text(re.sub(r"[*?\[]", r"[\g<0>]", os.path.abspath(file)))


def parquet_rows(files: Iterable[Path]) -> str:
    """What stands after FROM for the rows of Parquet files, at least one."""
    return f"read_parquet([{', '.join(map(sql_path, files))}], hive_partitioning=false)"


def count_rows(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    """Number of rows of a table, or of whatever else may follow FROM."""
    return int(connection.execute(f"SELECT count(*) FROM {rows}").fetchall()[0][0])

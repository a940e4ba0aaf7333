"""Pieces of SQL for DuckDB: quoting, types of raw ids, counts."""

from __future__ import annotations

import duckdb

from unigrf_dist.data.manifest import IdType

ID_TYPES: dict[IdType, str] = {"int64": "BIGINT", "string": "VARCHAR"}


def sql_text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def sql_name(value: str) -> str:
    """A quoted identifier, such as the name of a column."""
    return '"' + value.replace('"', '""') + '"'


def count_rows(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    """Number of rows of a table, or of whatever else may follow FROM."""
    return int(connection.execute(f"SELECT count(*) FROM {rows}").fetchall()[0][0])

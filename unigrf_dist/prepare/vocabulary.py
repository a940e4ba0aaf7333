"""The vocabularies of a data set, made from the table ``events``: items, users and behaviours."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.sql import count_rows
from unigrf_dist.prepare.workspace import arrow_batches

_ITEMS_PER_CHUNK = 1 << 20
# Behaviour codes are int16.
_MAX_BEHAVIOURS = 1 << 15


def make_items(connection: duckdb.DuckDBPyConnection) -> int:
    """Make the table ``items(raw_id, item_id)``: ids 0, 1, … in the order of the raw ids. Returns their number."""
    connection.execute(
        "CREATE TABLE items AS SELECT raw_id, row_number() OVER (ORDER BY raw_id) - 1 AS item_id "
        "FROM (SELECT DISTINCT item_key AS raw_id FROM events)"
    )
    return count_rows(connection, "items")


def make_users(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table ``users(raw_id)`` of all users with events."""
    connection.execute("CREATE TABLE users AS SELECT DISTINCT user_key AS raw_id FROM events")


def raw_item_ids(connection: duckdb.DuckDBPyConnection) -> Iterator[pa.Array]:
    """Raw ids by ascending item id, in chunks."""
    for batch in arrow_batches(connection, "SELECT raw_id FROM items ORDER BY item_id", _ITEMS_PER_CHUNK):
        yield batch.column(0)


def make_behaviours(connection: duckdb.DuckDBPyConnection, source: Source) -> list[dict[str, float]]:
    """Make the table ``behaviours(code, value_0 …)`` of all distinct behaviours, ordered by their values.

    Returns:
        named values of every code, by code.

    Raises:
        UserError: there are more distinct behaviours than int16 codes.
    """
    names = list(source.behaviours)
    if not names:
        connection.execute("CREATE TABLE behaviours AS SELECT 0::SMALLINT AS code")
        return [{"event": 1.0}]
    values = ", ".join(f"value_{n}" for n in range(len(names)))
    distinct = connection.execute(
        f"SELECT DISTINCT {values} FROM events ORDER BY {values} LIMIT {_MAX_BEHAVIOURS + 1}"
    ).fetchall()
    if len(distinct) > _MAX_BEHAVIOURS:
        raise UserError(
            f"{source.files[0]}: columns {', '.join(source.behaviours.values())} have more than "
            f"{_MAX_BEHAVIOURS:,} distinct combinations; choose columns of few values, or round them"
        )
    connection.execute(
        f"CREATE TABLE behaviours AS SELECT (row_number() OVER (ORDER BY {values}) - 1)::SMALLINT AS code, "
        f"{values} FROM (SELECT DISTINCT {values} FROM events)"
    )
    return [dict(zip(names, row, strict=True)) for row in distinct]

"""The vocabularies of a data set, made from the table ``events``: items, users and behaviours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.sql import count_rows
from unigrf_dist.prepare.workspace import arrow_batches

_ITEMS_PER_CHUNK = 1 << 20
# Behaviour codes are int16.
_MAX_BEHAVIOURS = 1 << 15
# A value of its own is a token of its own, which must be seen often to be learnt.
MAX_VALUES = 1000
_MAX_EVENT_TYPES = 256


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

    Args:
        connection: database with the table ``events``.
        source: meaning of the values.

    Returns:
        named values of every code, by code; a missing value has no name there.

    Raises:
        UserError: a column is continuous, there are more distinct behaviours than int16 codes, or event types
            cannot be named.
    """
    names = list(source.behaviours)
    values = ", ".join(f"value_{n}" for n in range(len(source.value_types)))
    if not values:
        connection.execute("CREATE TABLE behaviours AS SELECT 0::SMALLINT AS code")
        return [{"event": 1.0}]
    distinct = connection.execute(
        f"SELECT DISTINCT {values} FROM events ORDER BY {values} LIMIT {_MAX_BEHAVIOURS + 1}"
    ).fetchall()
    _refuse_continuous(source, distinct)
    refuse_too_many_behaviours(source, distinct)
    connection.execute(
        f"CREATE TABLE behaviours AS SELECT (row_number() OVER (ORDER BY {values}) - 1)::SMALLINT AS code, "
        f"{values} FROM (SELECT DISTINCT {values} FROM events)"
    )
    if source.event_type is None:
        return [_present(names, row) for row in distinct]
    kinds = event_type_names(sorted({row[0] for row in distinct}), source)
    return [
        {**{name: float(kind == row[0]) for kind, name in kinds.items()}, **_present(names, row[1:])}
        for row in distinct
    ]


def refuse_too_many_behaviours(source: Source, distinct: Sequence[object]) -> None:
    """Raise UserError if there are more distinct behaviours than codes."""
    if len(distinct) > _MAX_BEHAVIOURS:
        raise UserError(
            f"{source.files[0]}: columns {', '.join(source.behaviours.values())} have more than "
            f"{_MAX_BEHAVIOURS:,} distinct combinations; choose columns of few values, or put them into buckets "
            "(--buckets)"
        )


def event_type_names(types: Sequence[str], source: Source) -> dict[str, str]:
    """Names of the behaviour values that stand for event types, by type: a name is what a task rule can contain.

    Raises:
        UserError: there are too many types for values of their own, or two would have one name.
    """
    if len(types) > _MAX_EVENT_TYPES:
        raise UserError(
            f"{source.files[0]}: column {source.event_type!r} has {len(types):,} values; event types are at "
            f"most {_MAX_EVENT_TYPES}, is it another column?"
        )
    names: dict[str, str] = {}
    for kind in types:
        name = re.sub(r"\W", "_", kind)
        name = name if re.match(r"[^\W\d]", name) else f"_{name}"
        if name in source.behaviours or name in names.values():
            raise UserError(
                f"{source.files[0]}: event type {kind!r} of column {source.event_type!r} is called {name} in "
                "rules, which is another value's name too; rename one"
            )
        names[kind] = name
    return names


def _present(names: Sequence[str], values: Sequence[float | None]) -> dict[str, float]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _refuse_continuous(source: Source, distinct: Sequence[Sequence[object]]) -> None:
    first = len(source.value_types) - len(source.behaviours)
    for number, (name, column) in enumerate(source.behaviours.items(), start=first):
        if len({row[number] for row in distinct}) > MAX_VALUES:
            raise UserError(
                f"{source.files[0]}: column {column!r} has more than {MAX_VALUES:,} distinct values; put a "
                f"continuous one into buckets by their lower edges (--buckets {name}=0,10,60), or leave it out"
            )

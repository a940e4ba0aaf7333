"""Dense ids of an appended day: those that are known, and behind them those of what is new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from unigrf_dist.data.dataset import Dataset
from unigrf_dist.data.manifest import FileRecord
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.sql import count_rows, sql_path
from unigrf_dist.prepare.vocabulary import event_type_names, refuse_too_many_behaviours
from unigrf_dist.prepare.workspace import arrow_batches

_ROWS_PER_CHUNK = 1 << 18


def make_day_ids(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> tuple[pa.Array, pa.Array]:
    """Make ``day_items`` and ``day_users`` of all ids of the day, and ``items`` and ``users`` of the new ones.

    Events of new users and items that have too few are deleted first.

    Args:
        connection: database with the table ``events``.
        dataset: the data set that grows.

    Returns:
        raw ids of the new items and of the new users, in the order of their dense ids.
    """
    manifest = dataset.manifest
    days = [day.items for day in manifest.days if day.items is not None]
    items = _parquet(dataset.path, [manifest.items, *days])
    users = _parquet(dataset.path, manifest.shards)
    _make_known(connection, "item", f"SELECT raw_id, item_id FROM {items} WHERE raw_id IS NOT NULL")
    _make_known(connection, "user", f"SELECT raw_user_id AS raw_id, user_id FROM {users}")
    rare = [
        f"{owner}_key IN (SELECT {owner}_key FROM events ANTI JOIN known_{owner}s k ON k.raw_id = {owner}_key "
        f"GROUP BY {owner}_key HAVING count(*) < {least})"
        for owner, least in (
            ("user", int(manifest.arguments.get("min_events", 1))),
            ("item", int(manifest.arguments.get("min_item_events", 1))),
        )
        if least > 1
    ]
    if rare:
        connection.execute(f"DELETE FROM events WHERE {' OR '.join(rare)}")
    if not count_rows(connection, "events"):
        raise UserError(f"{dataset.path}: the day has no events, or none are left; check its files and the format")
    new_items = _make_new(connection, "item", manifest.num_items)
    return new_items, _make_new(connection, "user", manifest.num_users)


def tails(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> Iterator[pa.RecordBatch]:
    """What the latest index says of the day's known users, by ascending user id."""
    manifest = dataset.manifest
    records = [(0, manifest.users)] + [(number, day.users) for number, day in enumerate(manifest.days, start=1)]
    known = f"SEMI JOIN (SELECT user_id FROM day_users WHERE user_id < {manifest.num_users}) USING (user_id)"
    parts = " UNION ALL ".join(
        f"SELECT *, {number} AS day FROM {_parquet(dataset.path, [record])} {known}"
        for number, record in records
        if record is not None
    )
    values = ("num_events", "item_before", "time_before", "last_item", "last_time")
    chosen = ", ".join(f"arg_max({name}, day)" for name in values)
    query = f"SELECT user_id, {chosen} FROM ({parts}) GROUP BY user_id ORDER BY user_id"
    # A cursor of its own: the connection is streaming the events at the same time.
    yield from arrow_batches(connection.cursor(), query, _ROWS_PER_CHUNK)


def make_day_behaviours(
    connection: duckdb.DuckDBPyConnection, source: Source, known: Sequence[Mapping[str, float]]
) -> list[dict[str, float]]:
    """Make the table ``behaviours(code, value_0 …)`` of the day. Returns the values of all codes, new ones last.

    A new event type is a further value of all behaviours, 0 for those that there are.

    Raises:
        UserError: there are too many behaviours, or event types cannot be named.
    """
    values = ", ".join(f"value_{n}" for n in range(len(source.value_types)))
    if not values:
        connection.execute("CREATE TABLE behaviours AS SELECT 0::SMALLINT AS code")
        return [dict(each) for each in known]
    rows = connection.execute(f"SELECT DISTINCT {values} FROM events ORDER BY {values}").fetchall()
    kinds: dict[str, str] = {}
    if source.event_type is not None:
        kinds = event_type_names(sorted({row[0] for row in rows}), source)
    told = {name for each in known for name in each if name not in source.behaviours} if kinds else set()
    types = sorted(told) + sorted(set(kinds.values()) - told)
    zeros = dict.fromkeys(types, 0.0)
    all_known = [{**zeros, **each} for each in known]
    codes = {_key(each): code for code, each in enumerate(all_known)}
    table = []
    for row in rows:
        numbers = row[len(row) - len(source.behaviours) :]
        present = {n: v for n, v in zip(source.behaviours, numbers, strict=True) if v is not None}
        named = {**zeros, **({kinds[row[0]]: 1.0} if kinds else {}), **present}
        code = codes.setdefault(_key(named), len(all_known))
        if code == len(all_known):
            all_known.append(named)
        table.append((code, *row))
    refuse_too_many_behaviours(source, all_known)
    columns = ", ".join(f"value_{n} {kind}" for n, kind in enumerate(source.value_types))
    connection.execute(f"CREATE TABLE behaviours (code SMALLINT, {columns})")
    marks = ", ".join("?" * (1 + len(source.value_types)))
    connection.executemany(f"INSERT INTO behaviours VALUES ({marks})", table)
    return all_known


def _key(behaviour: Mapping[str, float]) -> frozenset[tuple[str, float]]:
    return frozenset(behaviour.items())


def _make_known(connection: duckdb.DuckDBPyConnection, owner: str, query: str) -> None:
    connection.execute(
        f"CREATE TABLE known_{owner}s AS SELECT k.* FROM ({query}) k "
        f"SEMI JOIN (SELECT DISTINCT {owner}_key AS raw_id FROM events) d USING (raw_id)"
    )


def _make_new(connection: duckdb.DuckDBPyConnection, owner: str, first: int) -> pa.Array:
    connection.execute(
        f"CREATE TABLE {owner}s AS SELECT raw_id, row_number() OVER (ORDER BY raw_id) - 1 + {first} AS {owner}_id "
        f"FROM (SELECT DISTINCT {owner}_key AS raw_id FROM events) ANTI JOIN known_{owner}s USING (raw_id)"
    )
    connection.execute(
        f"CREATE TABLE day_{owner}s AS SELECT raw_id, {owner}_id FROM known_{owner}s "
        f"UNION ALL SELECT raw_id, {owner}_id FROM {owner}s"
    )
    query = f"SELECT raw_id FROM {owner}s ORDER BY {owner}_id"
    return connection.sql(query).to_arrow_table().column(0).combine_chunks()


def _parquet(folder: Path, records: Sequence[FileRecord]) -> str:
    """What may follow FROM: the rows of files of the data set."""
    files = ", ".join(sql_path(folder / record.file) for record in records)
    return f"read_parquet([{files}], hive_partitioning=false)"

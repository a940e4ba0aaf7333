"""The work on one bucket of users: its survey, and its run of sorted sequences.

A survey counts what the whole data set needs to know before ids can be given. A run holds the bucket's users by
ascending raw id, each with its events in their final order and under their final ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from unigrf_dist.data.sequences import offsets_of
from unigrf_dist.prepare.plan import Plan
from unigrf_dist.prepare.sql import parquet_rows, sql_text
from unigrf_dist.prepare.suspicions import suspicious_counts
from unigrf_dist.prepare.user_chunks import UserChunk, user_chunks
from unigrf_dist.prepare.vocabulary import MAX_BEHAVIOURS
from unigrf_dist.prepare.workspace import arrow_batches

SURVEYED_ITEMS, SURVEYED_VALUES = "items.parquet", "values.parquet"
RUN_FILE = "sequences.arrow"
_EVENTS_PER_CHUNK = 1 << 16


def survey(
    connection: duckdb.DuckDBPyConnection, plan: Plan, pieces: Sequence[Path], folder: Path
) -> dict[str, Any]:
    """Count items and distinct behaviours of a bucket into ``folder``.

    ``items.parquet`` holds ``item_key``, ``events`` (of all users), ``kept`` (of users with enough events) and
    counts of suspicious events; ``values.parquet`` the distinct behaviours of kept events, with their items where
    items may be dropped.

    Args:
        connection: database for the work.
        plan: the preparation.
        pieces: the bucket's files; may be none.
        folder: folder to write into.

    Returns:
        the counts: ``events``, ``duplicates`` that were dropped, and ``suspicious`` ones.
    """
    source = plan.source
    if not pieces:
        return {"events": 0, "duplicates": 0, "suspicious": [0] * len(suspicious_counts(source))}
    rows = make_bucket(connection, plan, pieces)
    kept = "count(*)" if plan.thinning.min_events == 1 else "count(*) FILTER (kept)"
    suspicious = [f"{count} AS suspicious_{n}" for n, count in enumerate(suspicious_counts(source))]
    connection.execute(
        f"COPY (SELECT {', '.join(['item_key', 'count(*) AS events', f'{kept} AS kept', *suspicious])} "
        f"FROM bucket GROUP BY item_key) TO {_quoted(folder / SURVEYED_ITEMS)} (FORMAT parquet)"
    )
    values = [f"value_{n}" for n in range(len(source.value_types))]
    if values:
        columns = ", ".join([*values, *(["item_key"] if plan.thinning.min_item_events > 1 else [])])
        few = "" if plan.thinning.min_item_events > 1 else f"ORDER BY {columns} LIMIT {MAX_BEHAVIOURS + 1}"
        connection.execute(
            f"COPY (SELECT DISTINCT {columns} FROM bucket {_where_kept(plan)} {few}) "
            f"TO {_quoted(folder / SURVEYED_VALUES)} (FORMAT parquet)"
        )
    counted = ["events", *(f"suspicious_{n}" for n in range(len(suspicious)))]
    sums = ", ".join(f"sum({name})::BIGINT" for name in counted)
    [(events, *counts)] = connection.execute(
        f"SELECT {sums} FROM {parquet_rows([folder / SURVEYED_ITEMS])}"
    ).fetchall()
    return {"events": events, "duplicates": rows - events, "suspicious": counts}


def write_run(
    connection: duckdb.DuckDBPyConnection, plan: Plan, pieces: Sequence[Path], folder: Path
) -> dict[str, Any]:
    """Sort a bucket's events by user, time and position, and write its users into ``folder``.

    Args:
        connection: database with the tables ``items`` and ``behaviours``.
        plan: the preparation.
        pieces: the bucket's files; may be none.
        folder: folder to write into.

    Returns:
        the counts: ``events``, ``unsorted_users`` and ``duplicates``, see ``UserChunk``.
    """
    counts = {"events": 0, "unsorted_users": 0, "duplicates": 0}
    if not pieces:
        return counts
    make_bucket(connection, plan, pieces)
    source = plan.source
    equal = "IS NOT DISTINCT FROM" if source.may_be_missing else "="
    same = " AND ".join(f"b.value_{n} {equal} e.value_{n}" for n in range(len(source.value_types))) or "true"
    query = (
        "SELECT e.user_key, i.item_id, b.code, e.time, e.position FROM "
        f"(SELECT * FROM bucket {_where_kept(plan)}) e "
        f"JOIN items i ON i.raw_id = e.item_key JOIN behaviours b ON {same} "
        "ORDER BY e.user_key, e.time, e.position"
    )
    writer: ipc.RecordBatchFileWriter | None = None
    for chunk in user_chunks(arrow_batches(connection, query, _EVENTS_PER_CHUNK)):
        batch = _as_batch(chunk)
        if writer is None:
            options = ipc.IpcWriteOptions(compression="lz4")
            writer = ipc.new_file(str(folder / RUN_FILE), batch.schema, options=options)
        writer.write_batch(batch)
        counts["events"] += len(chunk.item_ids)
        counts["unsorted_users"] += chunk.num_unsorted_users
        counts["duplicates"] += chunk.num_duplicates
    if writer is not None:
        writer.close()
    return counts


def read_run(folder: Path, columns: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
    """Users of a run by ascending raw id: raw id, item ids, behaviours, times in seconds.

    Args:
        folder: folder of the run.
        columns: numbers of the columns to read; None for all.
    """
    if not (folder / RUN_FILE).exists():
        return
    options = ipc.IpcReadOptions(included_fields=None if columns is None else list(columns))
    with ipc.open_file(str(folder / RUN_FILE), options=options) as run:
        for number in range(run.num_record_batches):
            yield run.get_batch(number)


def make_bucket(connection: duckdb.DuckDBPyConnection, plan: Plan, pieces: Sequence[Path]) -> int:
    """Make ``bucket`` of the bucket's events, of which ``kept`` tells those of users with enough events.

    Args:
        connection: database for the work.
        plan: the preparation.
        pieces: the bucket's files, at least one.

    Returns:
        number of events with their duplicates.
    """
    connection.execute("DROP VIEW IF EXISTS bucket; DROP TABLE IF EXISTS bucket_events")
    rows, thinning = parquet_rows(pieces), plan.thinning
    events = rows
    if thinning.drop_duplicates:
        values = "".join(f", value_{n}" for n in range(len(plan.source.value_types)))
        events = (
            f"(SELECT user_key, item_key, time{values}, min(position) AS position FROM {rows} "
            f"GROUP BY user_key, item_key, time{values})"
        )
    if thinning == type(thinning)(min_item_events=thinning.min_item_events):
        connection.execute(f"CREATE VIEW bucket AS SELECT * FROM {rows}")
    else:
        connection.execute(
            "CREATE TABLE bucket_events AS SELECT *, "
            f"count(*) OVER (PARTITION BY user_key) >= {thinning.min_events} AS kept FROM {events}"
        )
        connection.execute("CREATE VIEW bucket AS SELECT * FROM bucket_events")
    [(count,)] = connection.execute(f"SELECT count(*) FROM {rows}").fetchall()
    return int(count)


def _where_kept(plan: Plan) -> str:
    return "WHERE kept" if plan.thinning.min_events > 1 else ""


def _as_batch(chunk: UserChunk) -> pa.RecordBatch:
    offsets = pa.array(offsets_of(chunk.lengths).astype(np.int32))
    # Dense item ids of fewer than 2^31 items, which the catalogue's tables could not hold either.
    lists = (chunk.item_ids.astype(np.int32), chunk.behaviours, chunk.timestamps)
    columns = [chunk.raw_user_ids, *(pa.ListArray.from_arrays(offsets, pa.array(values)) for values in lists)]
    return pa.RecordBatch.from_arrays(columns, names=["raw_user_id", "item_ids", "behaviours", "timestamps"])


def _quoted(file: Path) -> str:
    return sql_text(str(file.absolute()))

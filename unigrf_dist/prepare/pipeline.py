"""``unigrf prepare``: raw interactions into a data set.

DuckDB reads, checks and sorts under a memory limit, spilling to disk; the sorted events stream through numpy
into the shards. So neither the events nor the users have to fit into memory; the counts of the items do, at
8 bytes per item.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import duckdb

from unigrf_dist.data.manifest import Manifest, SkippedRows
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.formats import describe
from unigrf_dist.prepare.ingest import OnBadRow, Progress, load_events
from unigrf_dist.prepare.raw_checks import MICROSECONDS_PER_SECOND
from unigrf_dist.prepare.side_features import SideFeatures
from unigrf_dist.prepare.source import ColumnMapping, Source
from unigrf_dist.prepare.staging import new_folder
from unigrf_dist.prepare.summary import DatasetSummary
from unigrf_dist.prepare.user_chunks import RowFeed, user_chunks
from unigrf_dist.prepare.vocabulary import make_behaviours, make_items, make_users, raw_item_ids
from unigrf_dist.prepare.workspace import arrow_batches, workspace
from unigrf_dist.prepare.writer import DatasetWriter

_EVENTS_PER_CHUNK = 1 << 18


@dataclass(frozen=True)
class _Options:
    on_bad_row: OnBadRow
    min_events: int
    min_item_events: int
    memory_limit: str
    row_group_users: int
    shard_users: int

    def __post_init__(self) -> None:
        if self.on_bad_row not in ("error", "skip"):
            raise UserError(f"on_bad_row is {self.on_bad_row!r}; allowed are 'error' and 'skip'")
        for name in ("min_events", "min_item_events"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")


def prepare(
    format: str,
    *,
    raw: Path,
    out: Path,
    on_bad_row: OnBadRow = "error",
    min_events: int = 1,
    min_item_events: int = 1,
    columns: ColumnMapping | None = None,
    memory_limit: str = "2GB",
    row_group_users: int = 256,
    shard_users: int = 65_536,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DatasetSummary:
    """Make a data set of raw interactions.

    Args:
        format: a name in ``unigrf_dist.prepare.formats``.
        raw: file, or folder that holds the format's files.
        out: folder to write; it appears only when all went well.
        on_bad_row: ``error`` ends at the first row that cannot be read; ``skip`` leaves such rows out, counts
            them and keeps a sample of them in the manifest.
        min_events, min_item_events: leave out users and items of fewer events. Both are counted once, before
            anything is left out.
        columns: meaning of the columns; for ``csv`` and ``parquet`` only.
        memory_limit: of DuckDB, such as ``2GB``; what does not fit goes to disk beside ``out``.
        row_group_users: users of a row group, the smallest piece that ranks share.
        shard_users: users of a file.
        overwrite: replace ``out`` if it holds something.
        progress: called with what is being done and the share of it that is done, in [0, 1].

    Raises:
        UserError: anything about the raw files, ``out`` or the disk that the user can mend.
    """
    options = _Options(on_bad_row, min_events, min_item_events, memory_limit, row_group_users, shard_users)
    begun, report = time.perf_counter(), progress or (lambda what, share: None)
    source = describe(format, Path(raw), columns)
    with (
        new_folder(Path(out), overwrite=overwrite) as folder,
        workspace(folder / ".work", memory_limit) as connection,
    ):
        skipped = load_events(connection, source, on_bad_row=on_bad_row, progress=report)
        _keep_frequent(connection, source, options)
        named = columns.as_arguments() if columns else {}
        manifest = _write(connection, source, folder, format, options, named, skipped, report)
    return DatasetSummary(Path(out), manifest, time.perf_counter() - begun, source.notes)


def _keep_frequent(connection: duckdb.DuckDBPyConnection, source: Source, options: _Options) -> None:
    rare = [
        f"{key} IN (SELECT {key} FROM events GROUP BY {key} HAVING count(*) < {least})"
        for key, least in (("user_key", options.min_events), ("item_key", options.min_item_events))
        if least > 1
    ]
    if rare:
        connection.execute(f"DELETE FROM events WHERE {' OR '.join(rare)}")
    if _count(connection, "events") == 0:
        raise UserError(
            f"{source.files[0]}: no events are left; check the file, the format and the minimal counts"
        )


def _write(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    folder: Path,
    format: str,
    options: _Options,
    named: dict[str, str],
    skipped: SkippedRows,
    report: Progress,
) -> Manifest:
    report("sort", 0.0)
    num_events, unsorted = _count(connection, "events"), 0
    num_items = make_items(connection)
    if source.user_features is not None:
        make_users(connection)
    of_items = SideFeatures(connection, source.item_features, "item", source.item_type)
    of_users = SideFeatures(connection, source.user_features, "user", source.user_type)
    with DatasetWriter(
        folder,
        num_items=num_items,
        behaviours=make_behaviours(connection, source),
        raw_user_type=source.user_type,
        raw_item_type=source.item_type,
        row_group_users=options.row_group_users,
        shard_users=options.shard_users,
        user_features=list(of_users.multi_valued),
    ) as writer:
        codes = RowFeed(of_users.codes() if of_users.multi_valued else ())
        for chunk in user_chunks(arrow_batches(connection, _sorted_events(source), _EVENTS_PER_CHUNK)):
            writer.add(
                chunk.raw_user_ids,
                chunk.lengths,
                chunk.item_ids,
                chunk.behaviours,
                chunk.timestamps,
                codes.take(len(chunk.lengths)),
            )
            unsorted += chunk.num_unsorted_users
            report("write", writer.counts.events / num_events)
        return writer.finish(
            raw_item_ids(connection),
            source=format,
            arguments={"min_events": options.min_events, "min_item_events": options.min_item_events, **named},
            num_unsorted_users=unsorted,
            skipped_rows=skipped,
            features=[*of_items.write(folder), *of_users.write(folder)],
            item_features=of_items.write_items(folder),
        )


def _sorted_events(source: Source) -> str:
    """All events by user and time; the raw order decides between events of equal time."""
    same = " AND ".join(f"b.value_{n} = e.value_{n}" for n in range(len(source.behaviours))) or "true"
    return (
        f"SELECT e.user_key, i.item_id, b.code, e.time // {MICROSECONDS_PER_SECOND}, e.position "
        f"FROM events e JOIN items i ON i.raw_id = e.item_key JOIN behaviours b ON {same} "
        "ORDER BY e.user_key, e.time, e.position"
    )


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])

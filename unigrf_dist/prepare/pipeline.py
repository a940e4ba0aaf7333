"""``unigrf prepare``: raw interactions into a data set.

DuckDB reads, checks and sorts under a memory limit and spills to disk; the sorted events stream through numpy into
the shards. Hence neither events nor users have to fit into memory, only the counts of the items, at 8 bytes each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from unigrf_dist.errors import UserError
from unigrf_dist.prepare import suspicions
from unigrf_dist.prepare.feature_tables import FeatureTables
from unigrf_dist.prepare.formats import describe
from unigrf_dist.prepare.ingest import OnBadRow, load_events
from unigrf_dist.prepare.progress import Progress, no_progress
from unigrf_dist.prepare.provenance import raw_file_records
from unigrf_dist.prepare.source import ColumnMapping, Source
from unigrf_dist.prepare.sql import count_rows
from unigrf_dist.prepare.staging import new_folder
from unigrf_dist.prepare.summary import DatasetSummary
from unigrf_dist.prepare.suspicions import (
    suspicion_of_duplicates,
    suspicion_of_skipped,
    suspicions_of_events,
    suspicions_of_values,
)
from unigrf_dist.prepare.user_chunks import RowFeed, user_chunks
from unigrf_dist.prepare.vocabulary import make_behaviours, make_items, make_users, raw_item_ids
from unigrf_dist.prepare.workspace import arrow_batches, workspace
from unigrf_dist.prepare.writer import DatasetWriter

_EVENTS_PER_CHUNK = 1 << 18


def prepare(
    format: str,
    *,
    raw: Path | Sequence[Path],
    out: Path,
    on_bad_row: OnBadRow = "error",
    max_skipped: float | None = None,
    drop_duplicates: bool = False,
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
        format: name of a format in ``unigrf_dist.prepare.formats``.
        raw: raw file, or folder that holds the format's files; or several of them, read one after the other.
        out: folder to write; it appears only when all went well.
        on_bad_row: ``error`` ends at the first row that cannot be read; ``skip`` skips such rows, counts them and
            keeps a sample of them in the manifest.
        max_skipped: largest share of skipped rows, in [0, 1]; None for any.
        drop_duplicates: keep only the first of events that are alike in user, item, time and behaviour.
        min_events, min_item_events: users and items with fewer events are dropped. Both counts are taken once,
            before anything is dropped.
        columns: meaning of the columns; for the formats whose columns have to be named only.
        memory_limit: memory limit of DuckDB, such as ``2GB``; beyond it, DuckDB spills to disk beside ``out``.
        row_group_users: users of a row group, the unit in which data is read.
        shard_users: users of a shard, rounded up to whole row groups.
        overwrite: replace ``out`` if it holds something.
        progress: called as the work goes on.

    Raises:
        UserError: an option is out of range, the raw files cannot be read or hold bad rows, ``out`` cannot be
            written, or the disk or the memory limit is too small.
    """
    _check_options(on_bad_row, min_events, min_item_events, max_skipped)
    begun, report = time.perf_counter(), progress or no_progress
    raws = [Path(raw)] if isinstance(raw, (str, Path)) else [Path(path) for path in raw]
    sources = _sources(format, raws, columns)
    source = sources[0]
    with (
        new_folder(Path(out), overwrite=overwrite) as folder,
        workspace(folder / ".work", memory_limit) as connection,
    ):
        skipped = load_events(connection, sources, on_bad_row=on_bad_row, progress=report)
        warnings = suspicion_of_skipped(connection, skipped, max_skipped)
        if drop_duplicates:
            warnings += suspicions.drop_duplicates(connection, source)
        warnings += suspicions_of_events(connection, source)
        _drop_rare(connection, source, {"user_key": min_events, "item_key": min_item_events})
        report("sort", 0.0)
        num_items = make_items(connection)
        if source.user_features is not None:
            make_users(connection)
        item_features = FeatureTables(connection, source.item_features, "item", source.item_type)
        user_features = FeatureTables(connection, source.user_features, "user", source.user_type)
        behaviours = make_behaviours(connection, source)
        warnings += suspicions_of_values(source, behaviours)
        with DatasetWriter(
            folder,
            num_items=num_items,
            behaviours=behaviours,
            raw_user_type=source.user_type,
            raw_item_type=source.item_type,
            row_group_users=row_group_users,
            shard_users=shard_users,
            user_features=list(user_features.multi_valued),
        ) as writer:
            sorting = _write_sequences(connection, source, user_features, writer, report)
            chosen = {"drop_duplicates": "yes"} if drop_duplicates else {}
            named_columns = columns.as_arguments() if columns else {}
            least = {"min_events": min_events, "min_item_events": min_item_events}
            manifest = writer.finish(
                raw_item_ids(connection),
                source=format,
                arguments={**least, **chosen, **named_columns},
                num_unsorted_users=sorting.unsorted_users,
                num_duplicates=sorting.duplicates,
                skipped_rows=skipped,
                warnings=[*warnings, *suspicion_of_duplicates(sorting.duplicates)],
                raw_files=raw_file_records(raws, sources),
                features=[*item_features.write(folder), *user_features.write(folder)],
                item_features=item_features.write_items(folder),
                item_titles=item_features.titles(),
            )
    notes = [note for each in sources for note in each.notes]
    return DatasetSummary(Path(out), manifest, time.perf_counter() - begun, notes)


@dataclass(frozen=True)
class _Sorting:
    """What was found while the events were sorted.

    Attributes:
        unsorted_users: users whose raw events were not in the order of time.
        duplicates: events that equal another one.
    """

    unsorted_users: int
    duplicates: int


def _sources(format: str, raws: Sequence[Path], columns: ColumnMapping | None) -> list[Source]:
    """What the user named, each path once.

    Raises:
        UserError: no path is named, a file is named twice, or the files of two paths are not alike.
    """
    if not raws:
        raise UserError("no raw files are named; name them by --raw")
    sources = [describe(format, raw, columns) for raw in raws]
    files = [file.resolve() for source in sources for file in source.files]
    for file in files:
        if files.count(file) > 1:
            raise UserError(f"{file}: is named twice; its events would count twice")
    kinds = {(source.user_type, source.item_type, tuple(source.behaviours), source.limits) for source in sources}
    if len(kinds) > 1:
        raise UserError(f"{raws[0]} and {raws[1]}: have other ids or behaviours; prepare them one by one")
    return sources


def _check_options(on_bad_row: str, min_events: int, min_item_events: int, max_skipped: float | None) -> None:
    if on_bad_row not in ("error", "skip"):
        raise UserError(f"on_bad_row is {on_bad_row!r}; allowed are 'error' and 'skip'")
    if max_skipped is not None and not 0 <= max_skipped <= 1:
        raise UserError(f"max_skipped is {max_skipped}; it is a share between 0 and 1")
    for name, value in (("min_events", min_events), ("min_item_events", min_item_events)):
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")


def _drop_rare(connection: duckdb.DuckDBPyConnection, source: Source, min_counts: dict[str, int]) -> None:
    """Delete the events of users and items that have fewer than their minimal count of events."""
    rare = [
        f"{key} IN (SELECT {key} FROM events GROUP BY {key} HAVING count(*) < {least})"
        for key, least in min_counts.items()
        if least > 1
    ]
    if rare:
        connection.execute(f"DELETE FROM events WHERE {' OR '.join(rare)}")
    if count_rows(connection, "events") == 0:
        raise UserError(
            f"{source.files[0]}: no events are left; check the file, the format and the minimal counts"
        )


def _write_sequences(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    user_features: FeatureTables,
    writer: DatasetWriter,
    report: Progress,
) -> _Sorting:
    """Sort the events and write the users."""
    num_events, unsorted, duplicates = count_rows(connection, "events"), 0, 0
    codes = RowFeed(user_features.codes() if user_features.multi_valued else ())
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
        duplicates += chunk.num_duplicates
        report("write", writer.counts.events / num_events)
    return _Sorting(unsorted, duplicates)


def _sorted_events(source: Source) -> str:
    """Query of all events by user and time; the raw order decides between events of equal time."""
    equal = "IS NOT DISTINCT FROM" if source.may_be_missing else "="
    same = " AND ".join(f"b.value_{n} {equal} e.value_{n}" for n in range(len(source.value_types))) or "true"
    return (
        "SELECT e.user_key, i.item_id, b.code, e.time, e.position "
        f"FROM events e JOIN items i ON i.raw_id = e.item_key JOIN behaviours b ON {same} "
        "ORDER BY e.user_key, e.time, e.position"
    )

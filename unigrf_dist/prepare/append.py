"""``unigrf prepare --append``: a day's events joined to a data set, at the cost of the day.

Files of the data set are not touched. The day's files are written beside them, and the manifest, replaced last,
names them; ids of new users, items, behaviours and feature values come behind those that there are.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from unigrf_dist.data.dataset import Dataset, open_dataset
from unigrf_dist.data.manifest import (
    DAYS_FOLDER,
    DataWarning,
    DayRecord,
    Manifest,
    SkippedRows,
    read_manifest,
    write_manifest,
)
from unigrf_dist.errors import UserError
from unigrf_dist.prepare import suspicions
from unigrf_dist.prepare.day_events import load_day
from unigrf_dist.prepare.day_features import DayFeatures
from unigrf_dist.prepare.day_ids import make_day_behaviours, make_day_ids, tails
from unigrf_dist.prepare.day_writer import DayWriter
from unigrf_dist.prepare.formats import describe_all
from unigrf_dist.prepare.known_files import refuse_known_files
from unigrf_dist.prepare.known_options import columns_as_before, refuse_other_ids, refuse_other_options
from unigrf_dist.prepare.one_at_a_time import sole_change
from unigrf_dist.prepare.plan import OnBadRow
from unigrf_dist.prepare.progress import Progress, no_progress
from unigrf_dist.prepare.provenance import raw_file_records
from unigrf_dist.prepare.source import ColumnMapping, Source
from unigrf_dist.prepare.sql import count_rows
from unigrf_dist.prepare.staging import user_error_of_disk
from unigrf_dist.prepare.summary import DatasetSummary
from unigrf_dist.prepare.user_chunks import RowFeed, UserChunk, user_chunks
from unigrf_dist.prepare.workspace import arrow_batches, workspace

_EVENTS_PER_CHUNK = 1 << 18
_SORTED_EVENTS = (
    "SELECT u.user_id, i.item_id, b.code, e.time, e.position FROM events e "
    "JOIN day_users u ON u.raw_id = e.user_key JOIN day_items i ON i.raw_id = e.item_key "
    "JOIN behaviours b ON {same} ORDER BY u.user_id, e.time, e.position"
)


def append(
    format: str,
    *,
    raw: Path | Sequence[Path],
    into: Path,
    on_bad_row: OnBadRow = "error",
    max_skipped: float | None = None,
    drop_duplicates: bool = False,
    min_events: int = 1,
    min_item_events: int = 1,
    columns: ColumnMapping | None = None,
    memory_limit: str = "2GB",
    shard_users: int = 65_536,
    progress: Progress | None = None,
) -> DatasetSummary:
    """Join the events of a day, or of any other time, to a data set.

    Args:
        format: name of the raw format, which must be that of the data set.
        raw: raw files of the day; see ``prepare``.
        into: folder of the data set.
        on_bad_row, max_skipped, memory_limit: see ``prepare``.
        drop_duplicates, min_events, min_item_events, columns: see ``prepare``; what is left at its default is
            taken over from the data set. The least numbers of events are asked of new users and items alone, and
            duplicates are looked for within the day.
        shard_users: users of a shard of new users.
        progress: called as the work goes on.

    Raises:
        UserError: there is no data set, an option or the raw files contradict it, they were appended before, or
            whatever ``prepare`` refuses. The data set stays as it was.
    """
    begun, into = time.perf_counter(), Path(into)
    raws = [Path(raw)] if isinstance(raw, (str, Path)) else [Path(path) for path in raw]
    with sole_change(into) if into.is_dir() else _nowhere():
        dataset = open_dataset(into)
        before = dataset.manifest
        refuse_other_options(
            into,
            before,
            format,
            drop_duplicates=drop_duplicates,
            min_events=min_events,
            min_item_events=min_item_events,
        )
        columns = columns_as_before(into, before, columns)
        sources = describe_all(format, raws, columns)
        refuse_other_ids(into, before, sources[0][1])
        refuse_known_files(into, before, sources)
        day = len(before.days) + 1
        with _day_folder(into, day) as folder:
            with workspace(folder / ".work", memory_limit) as connection:
                skipped, warnings = load_day(
                    connection,
                    [source for _, source in sources],
                    folder / ".work",
                    on_bad_row=on_bad_row,
                    max_skipped=max_skipped,
                    drop_duplicates=bool(before.arguments.get("drop_duplicates")),
                    report=progress or no_progress,
                )
                after = _write_day(
                    connection,
                    dataset,
                    folder,
                    sources,
                    skipped=skipped,
                    warnings=warnings,
                    shard_users=shard_users,
                    report=progress or no_progress,
                )
            folder.rename(into / _place(day))
            write_manifest(into, after)
    notes = [note for _, each in sources for note in each.notes]
    return DatasetSummary(into, after, time.perf_counter() - begun, notes)


def _place(day: int) -> str:
    return f"{DAYS_FOLDER}/{day:05d}"


@contextmanager
def _nowhere() -> Iterator[None]:
    """No lock: there is nothing that another process could change, and opening it says so."""
    yield


@contextmanager
def _day_folder(into: Path, day: int) -> Iterator[Path]:
    """A folder to fill, removed unless it was renamed; what a killed append left behind is removed first."""
    partial = into / f"{_place(day)}.partial"
    with user_error_of_disk(into):
        for left in (partial, into / _place(day)):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        with user_error_of_disk(into):
            yield partial
    except BaseException:
        if len(read_manifest(into).days) < day:
            shutil.rmtree(into / _place(day), ignore_errors=True)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if not any((into / DAYS_FOLDER).iterdir()):
            (into / DAYS_FOLDER).rmdir()


def _write_day(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    folder: Path,
    sources: Sequence[tuple[Path, Source]],
    *,
    skipped: SkippedRows,
    warnings: list[DataWarning],
    shard_users: int,
    report: Progress,
) -> Manifest:
    """Write the day's files into ``folder``. Returns the manifest of the data set that has grown."""
    before, source, day = dataset.manifest, sources[0][1], len(dataset.manifest.days) + 1
    new_items, new_users = make_day_ids(connection, dataset)
    features = DayFeatures(connection, dataset, source)
    behaviours = make_day_behaviours(connection, source, before.behaviours)
    warnings += suspicions.suspicions_of_values(source, behaviours)
    unsorted = duplicates = 0
    with DayWriter(
        folder,
        _place(day),
        day,
        before,
        num_items=before.num_items + len(new_items),
        num_behaviours=len(behaviours),
        shard_users=shard_users,
    ) as writer:
        known = RowFeed(tails(connection, dataset))
        codes, num_events = features.of_users(len(new_users)), count_rows(connection, "events")
        same = " AND ".join(
            f"b.value_{n} IS NOT DISTINCT FROM e.value_{n}" for n in range(len(source.value_types))
        )
        query = _SORTED_EVENTS.format(same=same or "true")
        for chunk in user_chunks(arrow_batches(connection, query, _EVENTS_PER_CHUNK)):
            _add(writer, chunk, known, new_users, codes, first_new=before.num_users)
            unsorted += chunk.num_unsorted_users
            duplicates += chunk.num_duplicates
            report("write", writer.num_events / num_events)
        items, users = writer.finish(new_items, features.titles())
        vocabularies, item_codes, grown = features.write(folder, writer.record, len(new_items), len(new_users))
    warnings += suspicions.suspicion_of_duplicates(duplicates)
    record = DayRecord(
        num_events=writer.num_events,
        num_users=len(new_users),
        num_items=len(new_items),
        num_known_users=writer.num_known_users,
        num_behaviours=len(behaviours) - len(before.behaviours),
        num_values=features.num_new_values,
        num_training_events=int(writer.training_events.sum()),
        num_training_only_users=writer.num_training_only,
        first_timestamp=writer.first_timestamp,
        last_timestamp=writer.last_timestamp,
        num_unsorted_users=unsorted,
        skipped_rows=skipped,
        raw_files=raw_file_records(sources),
        users=users,
        items=items,
        item_features=item_codes,
        vocabularies=vocabularies,
    )
    counts = np.zeros(len(behaviours), np.int64)
    counts[: len(before.behaviour_counts)] = before.behaviour_counts
    told = [each.model_copy(update={"message": f"day {day}: {each.message}"}) for each in warnings]
    return Manifest.model_validate(
        {
            **{name: getattr(before, name) for name in Manifest.model_fields},
            "num_users": before.num_users + len(new_users),
            "num_items": before.num_items + len(new_items),
            "num_events": before.num_events + writer.num_events,
            "num_training_events": before.num_training_events + record.num_training_events,
            "num_training_only_users": before.num_training_only_users + record.num_training_only_users,
            "num_unsorted_users": before.num_unsorted_users + unsorted,
            "first_timestamp": min(before.first_timestamp, writer.first_timestamp),
            "last_timestamp": max(before.last_timestamp, writer.last_timestamp),
            "behaviours": behaviours,
            "behaviour_counts": (counts + writer.behaviour_counts).tolist(),
            "features": grown,
            # Nobody looks at the histories again; repeats stay those of what was prepared together.
            "num_duplicates": None,
            "warnings": [*before.warnings, *told],
            "shards": [*before.shards, *writer.shards],
            "deltas": [*before.deltas, *writer.deltas],
            "days": [*before.days, record],
        }
    )


def _add(
    writer: DayWriter,
    chunk: UserChunk,
    known: RowFeed,
    new_users: pa.Array,
    codes: RowFeed,
    *,
    first_new: int,
) -> None:
    """Write a chunk of users, known ones first."""
    users = chunk.raw_user_ids.to_numpy()
    num_known = int(np.searchsorted(users, first_new))
    split = int(chunk.lengths[:num_known].sum())
    if num_known:
        index = np.stack([column.to_numpy() for column in known.take(num_known)], axis=1)
        if not np.array_equal(index[:, 0], users[:num_known]):
            raise UserError("the index of the users does not fit the data set; prepare it again")
        events = (chunk.item_ids[:split], chunk.behaviours[:split], chunk.timestamps[:split])
        writer.add_known(users[:num_known], chunk.lengths[:num_known], events, index[:, 1:])
    if num_known < len(users):
        ids = users[num_known:]
        events = (chunk.item_ids[split:], chunk.behaviours[split:], chunk.timestamps[split:])
        writer.add_new(
            ids,
            new_users.take(pa.array(ids - first_new)),
            chunk.lengths[num_known:],
            events,
            codes.take(len(ids)),
        )

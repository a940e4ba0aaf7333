"""The last stage of a preparation: from sorted runs to the files of the data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from unigrf_dist.data.manifest import DataWarning, Manifest
from unigrf_dist.prepare.buckets import read_run
from unigrf_dist.prepare.feature_tables import FeatureTables
from unigrf_dist.prepare.merging import merged
from unigrf_dist.prepare.progress import Progress
from unigrf_dist.prepare.provenance import raw_file_records
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.suspicions import (
    dropped_duplicates,
    suspicion_of_duplicates,
    suspicions_of_events,
    suspicions_of_values,
)
from unigrf_dist.prepare.tasks import RUN, SURVEY, VOCABULARY, Share, Tasks
from unigrf_dist.prepare.user_chunks import RowFeed
from unigrf_dist.prepare.vocabulary import raw_item_ids
from unigrf_dist.prepare.writer import DatasetWriter


def write_dataset(
    tasks: Tasks,
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    *,
    row_group_users: int,
    shard_users: int,
    format: str,
    sources: Sequence[tuple[Path, Source]],
    arguments: dict[str, str | int | float],
    warnings: Sequence[DataWarning],
    report: Progress,
) -> Manifest:
    """Merge the runs of all buckets into a data set.

    Args:
        tasks: the work, all of it done.
        connection: database with the tables ``items`` and ``behaviours``.
        folder: folder to write; empty.
        row_group_users, shard_users: see ``DatasetWriter``.
        format: name of the raw format.
        sources: path that the user named, and what was found there.
        arguments: see ``Manifest``.
        warnings: what is known already.
        report: called as the work goes on.

    Raises:
        UserError: a file of side features cannot be read, or its rows are bad.
    """
    described, runs = tasks.plan.source, tasks.records(RUN)
    if described.user_features is not None:
        _make_users(tasks, connection)
    item_features = FeatureTables(connection, described.item_features, "item", described.item_type)
    user_features = FeatureTables(connection, described.user_features, "user", described.user_type)
    behaviours = tasks.staging.record(VOCABULARY)["behaviours"]
    num_duplicates = sum(run["duplicates"] for run in runs)
    items = list(raw_item_ids(connection))
    with DatasetWriter(
        folder,
        num_items=sum(map(len, items)),
        behaviours=behaviours,
        raw_user_type=described.user_type,
        raw_item_type=described.item_type,
        row_group_users=row_group_users,
        shard_users=shard_users,
        user_features=list(user_features.multi_valued),
    ) as writer:
        codes = RowFeed(user_features.codes() if user_features.multi_valued else ())
        num_events = sum(run["events"] for run in runs)
        for users in merged([read_run(place) for place in _runs(tasks)]):
            _add(writer, users, codes)
            report("write", writer.counts.events / num_events)
        return writer.finish(
            items,
            source=format,
            arguments=arguments,
            num_unsorted_users=sum(run["unsorted_users"] for run in runs),
            num_duplicates=num_duplicates,
            skipped_rows=tasks.skipped_rows(),
            warnings=[
                *warnings,
                *_warnings_of_surveys(tasks),
                *suspicions_of_values(described, behaviours),
                *suspicion_of_duplicates(num_duplicates),
            ],
            raw_files=raw_file_records(sources),
            features=[*item_features.write(folder), *user_features.write(folder)],
            item_features=item_features.write_items(folder),
            item_titles=item_features.titles(),
        )


def _runs(tasks: Tasks) -> list[Path]:
    return [tasks.staging.piece(RUN, bucket) for bucket in Share().of_buckets(tasks.plan)]


def _make_users(tasks: Tasks, connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table ``users(raw_id)`` of all users with events."""
    kind = {"int64": "BIGINT", "string": "VARCHAR"}[tasks.plan.source.user_type]
    connection.execute(f"CREATE TABLE users (raw_id {kind})")
    for place in _runs(tasks):
        for batch in read_run(place, columns=[0]):
            connection.register("some_users", batch)
            connection.execute("INSERT INTO users FROM some_users")
            connection.unregister("some_users")


def _add(writer: DatasetWriter, users: pa.RecordBatch, codes: RowFeed) -> None:
    raw_ids, *lists = users.columns
    lengths = np.diff(lists[0].offsets.to_numpy()).astype(np.int64)
    items, behaviours, timestamps = (column.flatten().to_numpy() for column in lists)
    writer.add(raw_ids, lengths, items.astype(np.int64), behaviours, timestamps, codes.take(len(lengths)))


def _warnings_of_surveys(tasks: Tasks) -> list[DataWarning]:
    surveys = tasks.records(SURVEY)
    counts = np.sum([survey["suspicious"] for survey in surveys], axis=0)
    dropped = sum(survey["duplicates"] for survey in surveys)
    return [*dropped_duplicates(dropped), *suspicions_of_events(tasks.plan.source, counts.tolist())]

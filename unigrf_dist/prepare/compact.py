"""``unigrf compact``: the days of a data set folded into its shards; ids, events and their order stay."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from unigrf_dist.data.dataset import Dataset, RowGroupReader, RowGroups, open_dataset
from unigrf_dist.data.feature_files import ITEM_COLUMN, write_item_codes, write_vocabulary
from unigrf_dist.data.manifest import MANIFEST_FILE, FeatureRecord, FileRecord, Manifest, write_manifest
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.one_at_a_time import sole_change
from unigrf_dist.prepare.progress import Progress, no_progress
from unigrf_dist.prepare.staging import user_error_of_disk
from unigrf_dist.prepare.summary import DatasetSummary
from unigrf_dist.prepare.writer import DatasetWriter

_ITEMS_PER_CHUNK = 1 << 20


def compact(folder: Path, *, shard_users: int = 65_536, progress: Progress | None = None) -> DatasetSummary:
    """Write the data set anew without deltas, and remove the files that it had.

    The new files lie in a folder of their own inside ``folder``; the manifest, replaced last, names them.

    Args:
        folder: folder of the data set, which nobody may be reading.
        shard_users: users of a shard, rounded up to whole row groups.
        progress: called as the work goes on.

    Raises:
        UserError: there is no data set, nothing was appended, it cannot be read or written, or another process
            changes it. The data set stays as it was.
    """
    begun, folder, report = time.perf_counter(), Path(folder), progress or no_progress
    open_dataset(folder)
    with sole_change(folder):
        dataset = open_dataset(folder)
        before = dataset.manifest
        if all(day.folded for day in before.days):
            raise UserError(f"{folder}: no days were appended since it was prepared or compacted")
        place = f"compact-{len(before.days):05d}"
        partial = folder / f"{place}.partial"
        with user_error_of_disk(folder):
            for left in (partial, folder / place):
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir()
            try:
                written = _written_anew(dataset, partial, shard_users, report)
                (partial / MANIFEST_FILE).unlink()
                after = _as_grown(written, before, place)
                partial.rename(folder / place)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            write_manifest(folder, after)
            _remove(folder, before)
    return DatasetSummary(folder, after, time.perf_counter() - begun)


def _written_anew(dataset: Dataset, folder: Path, shard_users: int, report: Progress) -> Manifest:
    manifest = dataset.manifest
    names = list(manifest.features_of("user"))
    dataset = dataset.with_user_features(names)
    groups, reader = RowGroups.of(manifest), RowGroupReader(dataset)
    with DatasetWriter(
        folder,
        num_items=manifest.num_items,
        behaviours=manifest.behaviours,
        raw_user_type=manifest.raw_user_type,
        raw_item_type=manifest.raw_item_type,
        row_group_users=manifest.row_group_users,
        shard_users=shard_users,
        user_features=names,
    ) as writer:
        raw_ids, shard_read = pa.array([]), -1
        for shard, group, count in zip(groups.shard, groups.group, groups.num_users, strict=True):
            if shard != shard_read:
                raw_ids, shard_read = reader.raw_user_ids(int(shard)), shard
            users = reader.read(int(shard), int(group))
            codes = [] if users.user_features is None else [pa.array(column) for column in users.user_features.T]
            first = int(group) * manifest.row_group_users
            writer.add(
                raw_ids.slice(first, count),
                users.lengths,
                users.item_ids,
                users.behaviours,
                users.timestamps,
                codes,
            )
            report("write", writer.counts.events / manifest.num_events)
        return writer.finish(
            _chunks(dataset.raw_item_ids()),
            source=manifest.source,
            arguments=manifest.arguments,
            num_unsorted_users=manifest.num_unsorted_users,
            num_duplicates=manifest.num_duplicates,
            warnings=manifest.warnings,
            raw_files=manifest.raw_files,
            skipped_rows=manifest.skipped_rows,
            features=_features(dataset, folder),
            item_features=_item_codes(dataset, folder),
            item_titles=dataset.item_titles(),
        )


def _chunks(values: pa.Array) -> Iterator[pa.Array]:
    for first in range(0, len(values), _ITEMS_PER_CHUNK):
        yield values.slice(first, _ITEMS_PER_CHUNK)


def _features(dataset: Dataset, folder: Path) -> list[FeatureRecord]:
    found = []
    for feature in dataset.manifest.features:
        values = dataset.feature_values(feature.owner, feature.name)[1:]
        file = write_vocabulary(folder, feature.owner, feature.name, values)
        found.append(feature.model_copy(update={"vocabulary": file}))
    return found


def _item_codes(dataset: Dataset, folder: Path) -> FileRecord | None:
    features = dataset.manifest.features_of("item")
    if not features:
        return None
    columns = [pa.array(np.arange(dataset.num_items))]
    for name in features:
        codes = dataset.item_feature(name)
        values = pa.array(codes.values.numpy())
        columns.append(
            values if codes.offsets is None else pa.ListArray.from_arrays(pa.array(codes.offsets.numpy()), values)
        )
    batch = pa.RecordBatch.from_arrays(columns, names=[ITEM_COLUMN, *features])
    return write_item_codes(folder, {name: each.multi_valued for name, each in features.items()}, [batch])


def _as_grown(written: Manifest, before: Manifest, place: str) -> Manifest:
    """The manifest of the new files in ``place``, with the days that are folded in."""

    def placed(record: FileRecord) -> FileRecord:
        return record.model_copy(update={"file": f"{place}/{record.file}"})

    days = [
        day.model_copy(
            update={"folded": True, "users": None, "items": None, "item_features": None, "vocabularies": {}}
        )
        for day in before.days
    ]
    return written.model_copy(
        update={
            "items": placed(written.items),
            "shards": [placed(shard) for shard in written.shards],
            "users": None if written.users is None else placed(written.users),
            "item_features": None if written.item_features is None else placed(written.item_features),
            "features": [
                each.model_copy(update={"vocabulary": placed(each.vocabulary)}) for each in written.features
            ],
            "days": days,
        }
    )


def _remove(folder: Path, before: Manifest) -> None:
    """Remove the files of an earlier manifest, and folders that they leave empty."""
    files = [folder / record.file for record in before.files]
    for file in files:
        file.unlink(missing_ok=True)
    parents = {parent for file in files for parent in file.parents if folder in parent.parents}
    for parent in sorted(parents, key=lambda each: -len(each.parts)):
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()

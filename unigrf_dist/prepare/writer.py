"""``DatasetWriter``: writes the files of a data set from chunks of users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unigrf_dist.data.feature_files import user_column
from unigrf_dist.data.manifest import (
    ITEMS_FILE,
    SEQUENCES_FOLDER,
    USERS_FILE,
    DataWarning,
    FeatureRecord,
    FileRecord,
    IdType,
    Manifest,
    RawFileRecord,
    ShardRecord,
    SkippedRows,
    file_record,
    write_manifest,
)
from unigrf_dist.data.sequences import offsets_of
from unigrf_dist.data.split import has_held_out, num_training_events
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.user_index import UserIndexWriter, last_two

_ARROW_TYPES = {"int64": pa.int64(), "string": pa.string()}
_ITEMS_PER_ROW_GROUP = 1 << 20


@dataclass
class Counts:
    """Counts for the manifest over the events written so far.

    Attributes:
        behaviours: ``[num_behaviours]`` int64, events of each code.
        item_training_events: ``[num_items]`` int64, training events of each item.
        users, events: number of users and of all their events.
        training_only_users: users with too few events to hold any out.
        repeats: events whose item the user had met before.
        first_timestamp, last_timestamp: range of the event times, in seconds.
    """

    behaviours: NDArray[np.int64]
    item_training_events: NDArray[np.int64]
    users: int = 0
    events: int = 0
    training_only_users: int = 0
    repeats: int = 0
    first_timestamp: int = field(default=np.iinfo(np.int64).max)
    last_timestamp: int = field(default=np.iinfo(np.int64).min)

    def add(
        self,
        lengths: NDArray[np.int64],
        items: NDArray[np.int64],
        behaviours: NDArray[np.int16],
        timestamps: NDArray[np.int64],
    ) -> None:
        """Count the events of whole users, at least one; see ``DatasetWriter.add``."""
        self.users += len(lengths)
        self.events += len(items)
        self.training_only_users += int((~has_held_out(lengths)).sum())
        self.behaviours += np.bincount(behaviours, minlength=len(self.behaviours))
        from_end = np.repeat(offsets_of(lengths)[1:], lengths) - np.arange(len(items))
        held_out = np.repeat(lengths - num_training_events(lengths), lengths)
        np.add.at(self.item_training_events, items[from_end > held_out], 1)
        users = np.repeat(np.arange(len(lengths)), lengths)
        met = np.sort(users * len(self.item_training_events) + items)
        self.repeats += int((np.diff(met) == 0).sum())
        self.first_timestamp = min(self.first_timestamp, int(timestamps.min()))
        self.last_timestamp = max(self.last_timestamp, int(timestamps.max()))


class DatasetWriter:
    """Assigns dense user ids, fills row groups and shards, counts, and writes the manifest.

    Args:
        folder: folder of the data set; empty.
        num_items: size of the item vocabulary.
        behaviours: named values of every behaviour code.
        raw_user_type, raw_item_type: types of the raw ids.
        row_group_users: users of a row group, the unit in which data is read.
        shard_users: users of a shard, rounded up to whole row groups.
        user_features: names of the users' side features.

    Attributes:
        counts: counts over all users added so far.

    Raises:
        UserError: ``row_group_users`` or ``shard_users`` is below 1.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_items: int,
        behaviours: list[dict[str, float]],
        raw_user_type: IdType,
        raw_item_type: IdType,
        row_group_users: int,
        shard_users: int,
        user_features: Sequence[str] = (),
    ) -> None:
        for name, value in (("row_group_users", row_group_users), ("shard_users", shard_users)):
            if value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1")
        self._folder = folder
        (folder / SEQUENCES_FOLDER).mkdir()
        self._behaviours = behaviours
        self._raw_user_type, self._raw_item_type = raw_user_type, raw_item_type
        self._row_group_users = row_group_users
        self._shard_users = -(-shard_users // row_group_users) * row_group_users
        self._schema = pa.schema(
            [
                ("user_id", pa.int64()),
                ("raw_user_id", _ARROW_TYPES[raw_user_type]),
                ("item_ids", pa.list_(pa.int64())),
                ("behaviours", pa.list_(pa.int16())),
                ("timestamps", pa.list_(pa.int64())),
                *((user_column(name), pa.int32()) for name in user_features),
            ]
        )
        # Dictionary encoding pays for repetitive columns only: one of ids or times would be as large as the data.
        self._repetitive = ["behaviours.list.element", *map(user_column, user_features)]
        self._buffered: list[pa.Table] = []
        self._num_buffered = 0
        self._shards: list[ShardRecord] = []
        self._open: pq.ParquetWriter | None = None
        self._open_users = self._open_events = 0
        self._index = UserIndexWriter(folder / USERS_FILE)
        self.counts = Counts(np.zeros(len(behaviours), np.int64), np.zeros(num_items, np.int64))

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()
        if self._open is not None:
            self._open.close()

    def add(
        self,
        raw_user_ids: pa.Array,
        lengths: NDArray[np.int64],
        item_ids: NDArray[np.int64],
        behaviours: NDArray[np.int16],
        timestamps: NDArray[np.int64],
        user_features: Sequence[pa.Array] = (),
    ) -> None:
        """Append users.

        Args:
            raw_user_ids: ``[U]``, ascending over all calls.
            lengths: ``[U]`` int64, events of each user, at least 1.
            item_ids: ``[E]`` int64, dense item ids of all users' events, oldest first within a user.
            behaviours: ``[E]`` int16 codes.
            timestamps: ``[E]`` int64, seconds.
            user_features: ``[U]`` codes under each side feature of the users, in the order of the constructor.
        """
        user_ids = np.arange(self.counts.users, self.counts.users + len(lengths))
        self._index.add(user_ids, lengths, last_two(lengths, item_ids, timestamps))
        offsets = pa.array(offsets_of(lengths).astype(np.int32))
        lists = [pa.ListArray.from_arrays(offsets, pa.array(v)) for v in (item_ids, behaviours, timestamps)]
        self.counts.add(lengths, item_ids, behaviours, timestamps)
        columns = [pa.array(user_ids), raw_user_ids, *lists, *user_features]
        self._buffered.append(pa.Table.from_arrays(columns, schema=self._schema))
        self._num_buffered += len(lengths)
        self._write(self._num_buffered // self._row_group_users * self._row_group_users)

    def finish(
        self,
        raw_item_ids: Iterable[pa.Array],
        *,
        source: str,
        arguments: dict[str, str | int | float],
        num_unsorted_users: int = 0,
        num_duplicates: int | None = None,
        warnings: Sequence[DataWarning] = (),
        raw_files: Sequence[RawFileRecord] = (),
        skipped_rows: SkippedRows | None = None,
        features: Sequence[FeatureRecord] = (),
        item_features: FileRecord | None = None,
        item_titles: pa.Array | None = None,
    ) -> Manifest:
        """Write the buffered users, the item dictionary and the manifest.

        Args:
            raw_item_ids: raw ids by ascending item id, in chunks.
            source, arguments, num_unsorted_users, num_duplicates, warnings, raw_files, skipped_rows, features,
                item_features: see ``Manifest``.
            item_titles: ``[num_items]`` strings, null where an item has no title; None where no titles are known.

        Returns:
            the manifest as written.
        """
        self._write(self._num_buffered)
        self._close_shard()
        self._index.close()
        counts = self.counts
        manifest = Manifest(
            source=source,
            arguments=arguments,
            num_users=counts.users,
            num_items=len(counts.item_training_events),
            num_events=counts.events,
            num_training_events=int(counts.item_training_events.sum()),
            num_training_only_users=counts.training_only_users,
            num_unsorted_users=num_unsorted_users,
            first_timestamp=counts.first_timestamp,
            last_timestamp=counts.last_timestamp,
            behaviours=self._behaviours,
            behaviour_counts=counts.behaviours.tolist(),
            raw_user_type=self._raw_user_type,
            raw_item_type=self._raw_item_type,
            row_group_users=self._row_group_users,
            skipped_rows=skipped_rows or SkippedRows(),
            items=self._write_items(raw_item_ids, item_titles),
            shards=self._shards,
            features=list(features),
            item_features=item_features,
            num_repeats=counts.repeats,
            num_duplicates=num_duplicates,
            warnings=list(warnings),
            version=metadata.version("unigrf-dist"),
            raw_files=list(raw_files),
            users=file_record(self._folder, USERS_FILE),
        )
        write_manifest(self._folder, manifest)
        return manifest

    def _write(self, num_users: int) -> None:
        if not num_users:
            return
        buffered = pa.concat_tables(self._buffered)
        written = 0
        while written < num_users:
            count = min(num_users - written, self._shard_users - self._open_users)
            self._write_to_shard(buffered.slice(written, count))
            written += count
        self._buffered = [buffered.slice(written)]
        self._num_buffered -= written

    def _write_to_shard(self, users: pa.Table) -> None:
        if self._open is None:
            self._open = pq.ParquetWriter(
                self._folder / self._shard_file(),
                self._schema,
                compression="zstd",
                use_dictionary=self._repetitive,
            )
        self._open.write_table(users, row_group_size=self._row_group_users)
        self._open_users += users.num_rows
        self._open_events += pc.sum(pc.list_value_length(users.column("item_ids"))).as_py()
        if self._open_users == self._shard_users:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._open is None:
            return
        self._open.close()
        record = file_record(self._folder, self._shard_file())
        self._shards.append(
            ShardRecord(**record.model_dump(), num_users=self._open_users, num_events=self._open_events)
        )
        self._open, self._open_users, self._open_events = None, 0, 0

    def _shard_file(self) -> str:
        return f"{SEQUENCES_FOLDER}/part-{len(self._shards):05d}.parquet"

    def _write_items(self, raw_ids: Iterable[pa.Array], titles: pa.Array | None) -> FileRecord:
        schema = pa.schema(
            [
                ("item_id", pa.int64()),
                ("raw_id", _ARROW_TYPES[self._raw_item_type]),
                ("training_events", pa.int64()),
                *([] if titles is None else [("title", pa.string())]),
            ]
        )
        training_events, first = self.counts.item_training_events, 0
        with pq.ParquetWriter(self._folder / ITEMS_FILE, schema, compression="zstd", use_dictionary=False) as file:
            for chunk in raw_ids:
                ids = np.arange(first, first + len(chunk))
                named = [] if titles is None else [titles.slice(first, len(chunk))]
                table = pa.Table.from_arrays([ids, chunk, training_events[ids], *named], schema=schema)
                file.write_table(table, row_group_size=_ITEMS_PER_ROW_GROUP)
                first += len(chunk)
        return file_record(self._folder, ITEMS_FILE)

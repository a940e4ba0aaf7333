"""``DayWriter``: writes the files of an appended day, and counts what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unigrf_dist.data.deltas import COLUMNS
from unigrf_dist.data.feature_files import user_column
from unigrf_dist.data.manifest import (
    DeltaRecord,
    FileRecord,
    Manifest,
    ShardRecord,
    file_record,
)
from unigrf_dist.data.sequences import IntArray, offsets_of
from unigrf_dist.data.split import has_held_out
from unigrf_dist.prepare.user_index import UserIndexWriter, held_out_items, last_two, merged_last_two, nobody

ITEMS, USERS = "items.parquet", "users.parquet"
_LISTS = [("item_ids", pa.int64()), ("behaviours", pa.int16()), ("timestamps", pa.int64())]


class DayWriter:
    """Deltas of known users, shards of new ones, and the index of both.

    Args:
        folder: folder to fill; empty.
        place: where it will lie in the data set; records name files below it.
        day: number of the day, from 1.
        manifest: the data set as it is.
        num_items, num_behaviours: sizes of the vocabularies with the day's.
        shard_users: users of a shard of new ones.
    """

    def __init__(
        self,
        folder: Path,
        place: str,
        day: int,
        manifest: Manifest,
        *,
        num_items: int,
        num_behaviours: int,
        shard_users: int,
    ) -> None:
        self._folder, self._place, self._day, self._manifest = folder, place, day, manifest
        self._raw_type = pa.string() if manifest.raw_user_type == "string" else pa.int64()
        self._features = [user_column(name) for name in manifest.features_of("user")]
        group = manifest.row_group_users
        self._shard_users = -(-shard_users // group) * group
        self._bounds = offsets_of(np.array([shard.num_users for shard in manifest.shards]))
        self._index = UserIndexWriter(folder / USERS)
        self._part: _Part | None = None
        self.deltas: list[DeltaRecord] = []
        self.shards: list[ShardRecord] = []
        self.behaviour_counts = np.zeros(num_behaviours, np.int64)
        self.training_events = np.zeros(num_items, np.int64)
        self.num_training_only = self.num_known_users = self.num_new_users = self.num_events = 0
        self.first_timestamp, self.last_timestamp = np.iinfo(np.int64).max, np.iinfo(np.int64).min

    def __enter__(self) -> DayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()
        if self._part is not None:
            self._part.close()

    def add_known(
        self,
        user_ids: IntArray,
        lengths: IntArray,
        events: tuple[IntArray, NDArray[np.int16], IntArray],
        before: IntArray,
    ) -> None:
        """Append events of users that were there before.

        Args:
            user_ids: ``[U]`` dense ids, ascending over all calls.
            lengths: ``[U]`` events of each user in the day.
            events: ``[E]`` items, behaviour codes and times in seconds.
            before: ``[U, 5]`` what the index says of them: number of events, and the last two.
        """
        self._count(user_ids, lengths, events, before[:, 0], before[:, 1:])
        self.num_known_users += len(user_ids)
        table = pa.Table.from_arrays([pa.array(user_ids), *_lists(lengths, events)], names=list(COLUMNS))
        shard_of = np.searchsorted(self._bounds, user_ids, side="right") - 1
        for shard in np.unique(shard_of):
            begin, end = np.searchsorted(shard_of, (shard, shard + 1))
            name = f"delta-{shard:05d}.parquet"
            if self._part is None or self._part.name != name:
                self._close_part()
                self._part = _Part(self._folder, name, table.schema, self._manifest.row_group_users, int(shard))
            self._part.add(table.slice(begin, end - begin))

    def add_new(
        self,
        user_ids: IntArray,
        raw_user_ids: pa.Array,
        lengths: IntArray,
        events: tuple[IntArray, NDArray[np.int16], IntArray],
        features: Sequence[pa.Array],
    ) -> None:
        """Append new users, whose ids follow those of all known ones; see ``add_known``."""
        self._count(user_ids, lengths, events, np.zeros(len(lengths), np.int64), nobody(len(lengths)))
        self.num_new_users += len(user_ids)
        schema = pa.schema(
            [
                ("user_id", pa.int64()),
                ("raw_user_id", self._raw_type),
                *((name, pa.list_(kind)) for name, kind in _LISTS),
                *((name, pa.int32()) for name in self._features),
            ]
        )
        columns = [pa.array(user_ids), raw_user_ids.cast(self._raw_type), *_lists(lengths, events), *features]
        table = pa.Table.from_arrays(columns, schema=schema)
        while table.num_rows:
            if self._part is None or self._part.shard >= 0 or self._part.num_users == self._shard_users:
                self._close_part()
                name = f"part-{len(self.shards):05d}.parquet"
                self._part = _Part(self._folder, name, schema, self._manifest.row_group_users)
            room = self._shard_users - self._part.num_users
            self._part.add(table.slice(0, room))
            table = table.slice(room)

    def finish(self, raw_item_ids: pa.Array, titles: pa.Array | None) -> tuple[FileRecord, FileRecord]:
        """Write what is buffered, and the items.

        Args:
            raw_item_ids: raw ids of the new items, in the order of their ids.
            titles: their titles, null where an item has none; None where the day brings none.

        Returns:
            records of the files of the items and of the users.
        """
        self._close_part()
        self._index.close()
        first = self._manifest.num_items
        changed = np.flatnonzero(self.training_events[:first])
        ids = np.concatenate([changed, np.arange(first, len(self.training_events))])
        raw_ids = pa.concat_arrays([pa.nulls(len(changed), raw_item_ids.type), raw_item_ids])
        columns: dict[str, Any] = {"item_id": ids, "raw_id": raw_ids, "training_events": self.training_events[ids]}
        if titles is not None:
            columns["title"] = pa.concat_arrays([pa.nulls(len(changed), titles.type), titles])
        pq.write_table(pa.table(columns), self._folder / ITEMS, compression="zstd", use_dictionary=False)
        return self.record(ITEMS), self.record(USERS)

    def record(self, name: str) -> FileRecord:
        """Record of a file of the day, named as the data set will have it."""
        return file_record(self._folder, name).model_copy(update={"file": f"{self._place}/{name}"})

    def _count(
        self,
        user_ids: IntArray,
        lengths: IntArray,
        events: tuple[IntArray, NDArray[np.int16], IntArray],
        num_before: IntArray,
        last_before: IntArray,
    ) -> None:
        items, behaviours, times = events
        total = num_before + lengths
        last = merged_last_two(last_before, last_two(lengths, items, times))
        self._index.add(user_ids, total, last)
        # What was held out is for training now, except for what is still, or newly, held out.
        np.add.at(self.training_events, items, 1)
        np.add.at(self.training_events, held_out_items(num_before, last_before), 1)
        np.subtract.at(self.training_events, held_out_items(total, last), 1)
        self.num_training_only += int(
            (~has_held_out(total)).sum() - (~has_held_out(num_before[num_before > 0])).sum()
        )
        self.behaviour_counts += np.bincount(behaviours, minlength=len(self.behaviour_counts))
        self.num_events += len(items)
        self.first_timestamp = min(self.first_timestamp, int(times.min()))
        self.last_timestamp = max(self.last_timestamp, int(times.max()))

    def _close_part(self) -> None:
        if self._part is None:
            return
        part, self._part = self._part, None
        part.close()
        sizes = {"num_users": part.num_users, "num_events": part.num_events, "day": self._day}
        fields = {**self.record(part.name).model_dump(), **sizes}
        if part.shard >= 0:
            self.deltas.append(DeltaRecord(**fields, shard=part.shard))
        else:
            self.shards.append(ShardRecord(**fields))


class _Part:
    """A file of users in row groups of one size. ``shard`` is that of its users, -1 if it is a shard itself."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, group: int, shard: int = -1) -> None:
        self.name, self.shard, self._group = name, shard, group
        self.num_users = self.num_events = 0
        repetitive = ["behaviours.list.element", *(name for name in schema.names if name.startswith("feature_"))]
        self._writer = pq.ParquetWriter(folder / name, schema, compression="zstd", use_dictionary=repetitive)
        self._buffered: list[pa.Table] = []
        self._num_buffered = 0

    def add(self, users: pa.Table) -> None:
        self._buffered.append(users)
        self._num_buffered += users.num_rows
        self.num_users += users.num_rows
        lists = users.column("item_ids").combine_chunks()
        self.num_events += int(lists.offsets[-1].as_py() - lists.offsets[0].as_py()) if len(lists) else 0
        self._write(self._num_buffered // self._group * self._group)

    def close(self) -> None:
        if self._writer.is_open:
            self._write(self._num_buffered)
            self._writer.close()

    def _write(self, num_users: int) -> None:
        if num_users:
            users = pa.concat_tables(self._buffered)
            self._writer.write_table(users.slice(0, num_users), row_group_size=self._group)
            self._buffered, self._num_buffered = [users.slice(num_users)], users.num_rows - num_users


def _lists(lengths: IntArray, events: tuple[IntArray, NDArray[np.int16], IntArray]) -> list[pa.Array]:
    offsets = pa.array(offsets_of(lengths).astype(np.int32))
    return [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in events]

"""``Dataset``: a prepared data set on disk, and the reader of its row groups."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from unigrf_dist.data.deltas import DeltaFile, DeltaReader
from unigrf_dist.data.feature_files import ItemCodes, read_item_codes, user_column
from unigrf_dist.data.integrity import check_content, verify_file
from unigrf_dist.data.manifest import FileRecord, Manifest, Owner, read_manifest, sha256
from unigrf_dist.data.sequences import IntArray, Sequences, offsets_of
from unigrf_dist.data.split import LAST_EVENTS, SPLITS, Split, SplitRule
from unigrf_dist.errors import UserError

_FIX = "copy the data set again, or make it anew with `unigrf prepare`"


@dataclass(frozen=True)
class Dataset:
    """A folder written by ``unigrf prepare`` or ``unigrf synthesize``.

    Attributes:
        path: folder of the data set.
        manifest: content of its ``manifest.json``.
        user_features: names of the user features whose codes the batches hold, in this order.
        split: which events are for training, validation and test.
        known_days: days that count as known; where it is given, what is read tells which events came later.
        only_users: dense ids of the users that are read, ascending; None for all.
    """

    path: Path
    manifest: Manifest
    user_features: tuple[str, ...] = ()
    split: SplitRule = LAST_EVENTS
    known_days: int | None = None
    only_users: IntArray | None = None

    @property
    def row_groups(self) -> RowGroups:
        """The row groups with the users that are read."""
        groups = RowGroups.of(self.manifest)
        return groups if self.only_users is None else groups.of_users(self.only_users)

    @property
    def num_items(self) -> int:
        """Size of the item vocabulary; dense item ids are below it."""
        return self.manifest.num_items

    @property
    def num_users(self) -> int:
        """Number of users; dense user ids are below it."""
        return self.manifest.num_users

    @property
    def num_users_read(self) -> int:
        """Number of users that are read."""
        return self.num_users if self.only_users is None else len(self.only_users)

    def training_counts(self) -> Tensor:
        """``[num_items]`` int64, training events of each item.

        Raises:
            UserError: the item dictionary cannot be read, or does not match the manifest.
        """
        if self._counted is not None:
            return torch.from_numpy(self._counted.training_events.copy())
        counts = np.zeros(self.num_items, np.int64)
        for ids, events in self._items("item_id", "training_events"):
            np.add.at(counts, ids.to_numpy(), events.to_numpy())
        return torch.from_numpy(counts)

    def catalogue_fingerprint(self, num_items: int | None = None) -> str:
        """Hexadecimal SHA-256 of the raw item ids in dense order; equal only if dense ids mean the same items.

        Args:
            num_items: take the first so many items alone; None takes all.
        """
        ids = self.raw_item_ids()[:num_items]
        if pa.types.is_integer(ids.type):
            return hashlib.sha256(ids.to_numpy().tobytes()).hexdigest()
        digest = hashlib.sha256()
        for raw in ids.to_pylist():
            digest.update(raw.encode() + b"\0")
        return digest.hexdigest()

    def raw_item_ids(self) -> pa.Array:
        """``[num_items]`` int64 or string, the raw id of every dense item id.

        Raises:
            UserError: the item dictionary cannot be read, or does not match the manifest.
        """
        # A day's file also has rows of earlier items, whose counts it changes.
        parts = [raw.filter(pc.is_valid(raw)) for (raw,) in self._items("raw_id")]
        return pa.chunked_array(parts).combine_chunks()

    def feature_values(self, owner: Owner, name: str) -> pa.Array:
        """``[cardinality]`` strings, the raw value of every code of a side feature; null for code 0.

        Raises:
            UserError: a vocabulary cannot be read, or does not match the manifest.
        """
        days = [day.vocabularies.get(f"{owner}/{name}") for day in self.manifest.days]
        records = [self.manifest.features_of(owner)[name].vocabulary, *filter(None, days)]
        (values,) = zip(*(self._columns(record, "value") for record in records), strict=True)
        return pa.chunked_array(values).combine_chunks()

    def item_titles(self) -> pa.Array | None:
        """``[num_items]`` strings, null where an item has no title; None where no item has one.

        Raises:
            UserError: the item dictionary cannot be read, or does not match the manifest.
        """
        records = [self.manifest.items, *(day.items for day in self.manifest.days if day.items is not None)]
        titled = [record for record in records if "title" in self._item_columns(record)]
        if not titled:
            return None
        parts = []
        for record in records:
            raw, titles = (
                self._columns(record, "raw_id", "title")
                if record in titled
                else (*self._columns(record, "raw_id"), None)
            )
            new = raw.is_valid()  # a day's file also has rows of earlier items, whose counts it changes
            parts.append(pa.nulls(new.true_count, pa.string()) if titles is None else titles.filter(new))
        return pa.concat_arrays(parts)

    def with_split(self, split: SplitRule) -> Dataset:
        """The same data set under another split."""
        return replace(self, split=split)

    @property
    def num_training_events(self) -> int:
        """Training events of all users."""
        counted = self._counted
        return self.manifest.num_training_events if counted is None else int(counted.training_events.sum())

    def num_held_out(self, split: Split) -> int:
        """Users that have an event of ``split``."""
        if self._counted is None:
            return self.num_users - self.manifest.num_training_only_users
        return self._counted.held_out[split]

    @property
    def split_rule(self) -> str:
        """The split in words."""
        return self.manifest.split_rule if self._counted is None else str(self.split)

    @cached_property
    def _counted(self) -> _SplitCounts | None:
        """What preparing counted for the default split, and what has to be read for any other; None for that."""
        if self.split == LAST_EVENTS:
            return None
        return _SplitCounts.of(self)

    def with_user_features(self, names: Sequence[str]) -> Dataset:
        """The same data set with batches that hold the codes of these user features, in this order."""
        return replace(self, user_features=tuple(names))

    def item_feature(self, name: str) -> ItemCodes:
        """Codes of all items under the item feature ``name``, which the manifest must have.

        Raises:
            UserError: the file cannot be read, or does not match the manifest.
        """
        days = [day.item_features for day in self.manifest.days]
        records = [record for record in (self.manifest.item_features, *days) if record is not None]
        files = [self.path / record.file for record in records]
        try:
            for file, record in zip(files, records, strict=True):
                verify_file(file, record)
            return read_item_codes(files, self.manifest.features_of("item")[name], self.num_items)
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise UserError(f"{files[0]}: cannot be read ({_first_line(error)}); {_FIX}") from error

    def _items(self, *columns: str) -> list[tuple[pa.Array, ...]]:
        """Columns of the item dictionary, and of what each day adds to it."""
        first = self._columns(self.manifest.items, *columns)
        days = [day for day in self.manifest.days if day.items is not None]
        found = len(first[0]) + sum(day.num_items for day in days)
        if found != self.num_items:
            file = self.path / self.manifest.items.file
            raise UserError(f"{file}: {found} items, but the manifest says {self.num_items}; {_FIX}")
        return [first, *(self._columns(day.items, *columns) for day in days if day.items is not None)]

    def _columns(self, record: FileRecord, *columns: str) -> tuple[pa.Array, ...]:
        file = self.path / record.file
        try:
            verify_file(file, record)
            table = pq.read_table(file, columns=list(columns))
            return tuple(table.column(column).combine_chunks() for column in columns)
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise UserError(f"{file}: cannot be read ({_first_line(error)}); {_FIX}") from error

    def _item_columns(self, record: FileRecord) -> list[str]:
        file = self.path / record.file
        try:
            return list(pq.read_schema(file).names)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file}: cannot be read ({_first_line(error)}); {_FIX}") from error


def open_dataset(path: Path | str, *, verify: bool = False) -> Dataset:
    """Open a data set.

    Args:
        path: folder of the data set.
        verify: also compare the SHA-256 of every file with the manifest, which reads all files.

    Raises:
        UserError: ``path`` holds no data set, a file of the manifest is missing, or its size (with ``verify``: its
            content) differs from the manifest.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for record in manifest.files:
        file = folder / record.file
        try:
            num_bytes = file.stat().st_size
        except OSError as error:
            raise UserError(f"{file}: named in the manifest, but {error.strerror}; {_FIX}") from error
        if num_bytes != record.num_bytes:
            raise UserError(f"{file}: {num_bytes} bytes, but the manifest says {record.num_bytes}; {_FIX}")
        if verify and sha256(file) != record.sha256:
            raise UserError(f"{file}: its SHA-256 is not the manifest's; {_FIX}")
    return Dataset(folder, manifest)


@dataclass(frozen=True)
class RowGroups:
    """Location and size of the ``G`` row groups of a data set, derived from the manifest alone.

    Attributes:
        shard: ``[G]`` int64, index into ``Manifest.shards``.
        group: ``[G]`` int64, row group inside that shard.
        num_users: ``[G]`` int64, users of the row group.
    """

    shard: IntArray
    group: IntArray
    num_users: IntArray

    @staticmethod
    def of(manifest: Manifest) -> RowGroups:
        """All row groups, in the order of the dense user ids."""
        users = np.array([shard.num_users for shard in manifest.shards], dtype=np.int64)
        groups = -(-users // manifest.row_group_users)
        shard = np.repeat(np.arange(len(users)), groups)
        group = np.arange(groups.sum()) - np.repeat(offsets_of(groups)[:-1], groups)
        remaining = users[shard] - group * manifest.row_group_users
        return RowGroups(shard, group, np.minimum(remaining, manifest.row_group_users))

    def of_users(self, users: IntArray) -> RowGroups:
        """The row groups that hold some of the ``users``, dense ids in ascending order, with so many of them."""
        counts = np.diff(np.searchsorted(users, offsets_of(self.num_users)))
        some = counts > 0
        return RowGroups(self.shard[some], self.group[some], counts[some])


class _SplitCounts(NamedTuple):
    """``[num_items]`` int64 training events of each item, and users with an event of each split."""

    training_events: IntArray
    held_out: dict[Split, int]

    @staticmethod
    def of(dataset: Dataset) -> _SplitCounts:
        """Read all events once.

        Raises:
            UserError: a shard cannot be read.
        """
        events, held_out = np.zeros(dataset.num_items, np.int64), dict.fromkeys(SPLITS, 0)
        groups, reader = dataset.row_groups, RowGroupReader(dataset)
        for shard, group in zip(groups.shard, groups.group, strict=True):
            sequences = reader.read(int(shard), int(group))
            trained = dataset.split.num_training_events(sequences)
            items = sequences.cut(slice(None), np.zeros_like(trained), trained).item_ids
            np.add.at(events, items, 1)
            for split in SPLITS:
                held_out[split] += len(dataset.split.held_out(sequences, split)[0])
        return _SplitCounts(events, held_out)


class _OpenShard(NamedTuple):
    """A shard, and the deltas of its users."""

    file: pq.ParquetFile
    deltas: list[DeltaFile]

    def close(self) -> None:
        self.file.close()
        for delta in self.deltas:
            delta.close()


class RowGroupReader:
    """Reads row groups and keeps a few shards open. Not thread-safe.

    Args:
        dataset: data set to read.
        most_open: shards that stay open.
    """

    def __init__(self, dataset: Dataset, *, most_open: int = 16) -> None:
        self._dataset, self._most_open = dataset, most_open
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._deltas = DeltaReader(dataset.path, dataset.manifest, dataset.known_days)

    def read(self, shard: int, group: int) -> Sequences:
        """All users of a row group that the data set reads, with all their events.

        Args:
            shard: index into ``Manifest.shards``.
            group: row group inside that shard.

        Raises:
            UserError: the shard cannot be read, or does not match the manifest.
        """
        columns = ["user_id", "item_ids", "behaviours", "timestamps"]
        features = [user_column(name) for name in self._dataset.user_features]
        file, deltas = self._shard(shard)
        try:
            table = file.read_row_group(group, columns=columns + features, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(shard, f"row group {group}: {_first_line(error)}") from error
        users, items, behaviours, timestamps = (table.column(name).combine_chunks() for name in columns)
        offsets = items.offsets.to_numpy()
        if not all(np.array_equal(offsets, other.offsets.to_numpy()) for other in (behaviours, timestamps)):
            raise self._unreadable(shard, f"row group {group}: a user's lists differ in length")
        sequences = Sequences(
            users.to_numpy(),
            offsets.astype(np.int64),
            items.values.to_numpy(),
            behaviours.values.to_numpy(),
            timestamps.values.to_numpy(),
            self._codes(table, features),
        )
        try:
            check_content(sequences, self._dataset.manifest)
        except ValueError as error:
            raise self._unreadable(shard, f"row group {group}: {error}") from error
        if not deltas and self._dataset.known_days is None:
            return self._read_users(sequences)
        try:
            sequences = self._deltas.merged(sequences, deltas, shard)
            check_content(sequences, self._dataset.manifest)
        except (OSError, ValueError, IndexError, pa.ArrowException) as error:
            raise self._unreadable(shard, f"row group {group} with its deltas: {_first_line(error)}") from error
        return self._read_users(sequences)

    def _read_users(self, sequences: Sequences) -> Sequences:
        users, first = self._dataset.only_users, int(sequences.user_ids[0])
        if users is None:
            return sequences
        begin, end = np.searchsorted(users, (first, first + sequences.num_users))
        return sequences.take(users[begin:end] - first)

    def raw_user_ids(self, shard: int) -> pa.Array:
        """``[U]`` int64 or string, raw ids of the users of a shard, in the order of their dense ids.

        Raises:
            UserError: the shard cannot be read, or does not match the manifest.
        """
        file = self._shard(shard).file
        try:
            return file.read(columns=["raw_user_id"], use_threads=False).column(0).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(shard, _first_line(error)) from error

    @staticmethod
    def _codes(table: pa.Table, features: Sequence[str]) -> NDArray[np.int32] | None:
        """``[U, F]`` int32 codes of the users."""
        return np.stack([table.column(name).to_numpy() for name in features], axis=1) if features else None

    def _shard(self, shard: int) -> _OpenShard:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        record = self._dataset.manifest.shards[shard]
        try:
            verify_file(self._dataset.path / record.file, record)
            file = pq.ParquetFile(self._dataset.path / record.file)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._unreadable(shard, _first_line(error)) from error
        if file.metadata.num_rows != record.num_users:
            mismatch = f"{file.metadata.num_rows} users, but the manifest says {record.num_users}"
            raise self._unreadable(shard, mismatch)
        try:
            self._open[shard] = _OpenShard(file, self._deltas.open(shard))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._unreadable(shard, f"its deltas: {_first_line(error)}") from error
        if len(self._open) > self._most_open:
            self._open.popitem(last=False)[1].close()
        return self._open[shard]

    def _unreadable(self, shard: int, problem: str) -> UserError:
        file = self._dataset.path / self._dataset.manifest.shards[shard].file
        return UserError(f"{file}: {problem}; {_FIX}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

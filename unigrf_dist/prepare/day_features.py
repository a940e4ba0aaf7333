"""Side features of what is new in an appended day; old items and users keep their codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.data.dataset import Dataset
from unigrf_dist.data.feature_files import ITEM_COLUMN, write_item_codes
from unigrf_dist.data.manifest import FEATURES_FOLDER, FeatureRecord, FileRecord, Owner
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.feature_tables import FeatureTables
from unigrf_dist.prepare.source import FeatureSource, Source
from unigrf_dist.prepare.user_chunks import RowFeed


class DayFeatures:
    """The features of the new items and users, whose raw ids are in the tables ``items`` and ``users``.

    Args:
        connection: database of the day.
        dataset: the data set that grows.
        source: files of the day; those of features may be absent, what is new has no value then.

    Raises:
        UserError: the files do not have the features of the data set, or cannot be read.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, dataset: Dataset, source: Source) -> None:
        self._dataset = dataset
        self.num_new_values: dict[str, int] = {}
        manifest = dataset.manifest
        self._known = {
            (each.owner, each.name): dataset.feature_values(each.owner, each.name)[1:]
            for each in manifest.features
        }
        self._tables: dict[Owner, FeatureTables | None] = {
            "item": self._table(connection, source.item_features, "item"),
            "user": self._table(connection, source.user_features, "user"),
        }

    def of_users(self, count: int) -> RowFeed:
        """Codes of the new users, in the order of their ids."""
        names, table = list(self._dataset.manifest.features_of("user")), self._tables["user"]
        if table is None:
            zeros = [pa.array(np.zeros(count, np.int32))] * len(names)
            return RowFeed([pa.RecordBatch.from_arrays(zeros, names=names)] if names else [])
        return RowFeed(batch.select([list(table.multi_valued).index(n) for n in names]) for batch in table.codes())

    def titles(self) -> pa.Array | None:
        """Titles of the new items, in the order of their ids; None where the day's files have none."""
        table = self._tables["item"]
        return None if table is None else table.titles()

    def write(
        self, folder: Path, record: Callable[[str], FileRecord], new_items: int, new_users: int
    ) -> tuple[dict[str, FileRecord], FileRecord | None, list[FeatureRecord]]:
        """Write new values and the codes of the new items.

        Args:
            folder: folder of the day.
            record: record of a file below it.
            new_items, new_users: numbers of new items and users.

        Returns:
            records of the files with new values, by owner and name, the record of the codes, and the features of
            the data set that has grown.
        """
        files, grown = {}, []
        for feature in self._dataset.manifest.features:
            table, owners = self._tables[feature.owner], new_items if feature.owner == "item" else new_users
            known = len(self._known[feature.owner, feature.name])
            values, missing = pa.array([], pa.string()), owners
            if table is not None:
                values = table.values()[feature.name][known:]
                missing = owners - table.num_with(feature.name)
            if len(values):
                (folder / FEATURES_FOLDER).mkdir(exist_ok=True)
                name = f"{FEATURES_FOLDER}/{feature.owner}-{feature.name}.parquet"
                codes = np.arange(known + 1, known + 1 + len(values), dtype=np.int32)
                pq.write_table(pa.table({"code": codes, "value": values}), folder / name, compression="zstd")
                files[f"{feature.owner}/{feature.name}"] = record(name)
                self.num_new_values[f"{feature.owner}/{feature.name}"] = len(values)
            sizes = {
                "cardinality": feature.cardinality + len(values),
                "num_missing": feature.num_missing + missing,
            }
            grown.append(feature.model_copy(update=sizes))
        of_items = self._dataset.manifest.features_of("item")
        codes_record = None
        if of_items and new_items:
            many = {name: feature.multi_valued for name, feature in of_items.items()}
            file = write_item_codes(folder, many, self._item_codes(many, new_items))
            codes_record = record(file.file)
        return files, codes_record, grown

    def _item_codes(self, many: dict[str, bool], new_items: int) -> Iterator[pa.RecordBatch]:
        table, first = self._tables["item"], self._dataset.num_items
        if table is not None:
            places = [0, *(1 + list(table.multi_valued).index(name) for name in many)]
            yield from (batch.select(places) for batch in table.item_codes())
            return
        empty = {
            True: pa.array([[]] * new_items, pa.list_(pa.int32())),
            False: pa.array([0] * new_items, pa.int32()),
        }
        columns = [pa.array(np.arange(first, first + new_items)), *(empty[several] for several in many.values())]
        yield pa.RecordBatch.from_arrays(columns, names=[ITEM_COLUMN, *many])

    def _table(
        self, connection: duckdb.DuckDBPyConnection, source: FeatureSource | None, owner: Owner
    ) -> FeatureTables | None:
        if source is None:
            return None
        manifest = self._dataset.manifest
        id_type = manifest.raw_item_type if owner == "item" else manifest.raw_user_type
        known = {name: values for (of, name), values in self._known.items() if of == owner}
        table = FeatureTables(connection, source, owner, id_type, known)
        before = {name: each.multi_valued for name, each in manifest.features_of(owner).items()}
        if table.multi_valued != before:
            raise UserError(
                f"{source.file}: has the {owner} features {_described(table.multi_valued)}, but "
                f"{self._dataset.path} has {_described(before)}; leave the file out, or prepare all again"
            )
        return table


def _described(features: dict[str, bool]) -> str:
    return ", ".join(f"{name} (several)" if many else name for name, many in features.items()) or "none"

"""Files of the side features: vocabularies, codes of the items, and the shard columns of the users' codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from unigrf_dist.data.manifest import FEATURES_FOLDER, FeatureRecord, FileRecord, Owner, file_record

ITEM_COLUMN = "item_id"
_ITEMS_FILE = f"{FEATURES_FOLDER}/items.parquet"


@dataclass(frozen=True)
class ItemCodes:
    """Codes of all ``V`` items under one feature.

    They take 4 bytes per code, and another 4 per item where an item may have several.

    Attributes:
        values: ``[N]`` int32 codes, item by item.
        offsets: ``[V + 1]`` int32, bounds of each item's codes in ``values``; None where every item has exactly
            one.
        cardinality: number of codes; 0 stands for a missing value.
    """

    values: Tensor
    offsets: Tensor | None
    cardinality: int


def user_column(name: str) -> str:
    """Name of the shard column that holds the codes of the user feature ``name``."""
    return f"feature_{name}"


def _code_type(multi_valued: bool) -> pa.DataType:
    """Arrow type of a feature's codes."""
    return pa.list_(pa.int32()) if multi_valued else pa.int32()


def write_vocabulary(folder: Path, owner: Owner, name: str, values: pa.Array) -> FileRecord:
    """Write the vocabulary of a feature: row ``n`` of the file is code ``n``, row 0 the missing value.

    Args:
        folder: folder of the data set.
        owner: whether items or users have the feature.
        name: name of the feature.
        values: raw values of the codes 1, 2, ….
    """
    (folder / FEATURES_FOLDER).mkdir(exist_ok=True)
    file = f"{FEATURES_FOLDER}/{owner}-{name}.parquet"
    rows = pa.concat_arrays([pa.nulls(1, pa.string()), values.cast(pa.string())])
    codes = pa.array(np.arange(len(rows), dtype=np.int32))
    pq.write_table(pa.table({"code": codes, "value": rows}), folder / file, compression="zstd")
    return file_record(folder, file)


def write_item_codes(folder: Path, features: Mapping[str, bool], chunks: Iterable[pa.RecordBatch]) -> FileRecord:
    """Write the codes of all items.

    Args:
        folder: folder of the data set.
        features: whether each feature is multi-valued, by its name.
        chunks: record batches with the columns item id and codes of each feature, by ascending item id.
    """
    (folder / FEATURES_FOLDER).mkdir(exist_ok=True)
    schema = pa.schema([(ITEM_COLUMN, pa.int64()), *((name, _code_type(many)) for name, many in features.items())])
    with pq.ParquetWriter(folder / _ITEMS_FILE, schema, compression="zstd") as file:
        for chunk in chunks:
            columns = [column.cast(field.type) for column, field in zip(chunk.columns, schema, strict=True)]
            file.write_table(pa.Table.from_arrays(columns, schema=schema))
    return file_record(folder, _ITEMS_FILE)


def read_item_codes(files: Sequence[Path], feature: FeatureRecord, num_items: int) -> ItemCodes:
    """Read the codes of an item feature.

    Args:
        files: files that ``write_item_codes`` wrote, of the first items and of those behind them.
        feature: the manifest's record of the feature.
        num_items: ``V``, number of items in the manifest.

    Raises:
        OSError, pa.ArrowException, KeyError: the file cannot be read or lacks the feature.
        ValueError: the number of items or the range of the codes contradicts the manifest.
    """
    tables = [pq.read_table(file, columns=[feature.name]) for file in files]
    column = pa.concat_tables(tables).column(feature.name).combine_chunks()
    if len(column) != num_items:
        raise ValueError(f"{len(column)} items, but the manifest says {num_items}")
    offsets = None
    if feature.multi_valued:
        offsets = torch.from_numpy(column.offsets.to_numpy().copy())
        column = column.values
    values = torch.from_numpy(column.to_numpy().copy())
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < feature.cardinality:
        raise ValueError(f"codes of {feature.name} reach beyond 0 … {feature.cardinality - 1}")
    return ItemCodes(values, offsets, feature.cardinality)

"""csv or Parquet files of any origin, with a mapping of their columns that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unigrf_dist.prepare.source import ColumnMapping, FeatureColumn, FeatureSource, Source, find_files


def csv(raw: Path, columns: ColumnMapping) -> Source:
    """Delimited text with a header line; fields may be in double quotes."""
    return Source(
        files=find_files(raw, "*.csv", "*.csv.gz", "*.tsv", "*.tsv.gz"),
        layout="csv",
        delimiter=columns.delimiter,
        **_meaning(columns),
    )


def parquet(raw: Path, columns: ColumnMapping) -> Source:
    """Parquet files; those of a folder are taken in the order of their names."""
    return Source(files=find_files(raw, "*.parquet", "**/*.parquet"), layout="parquet", **_meaning(columns))


def _meaning(columns: ColumnMapping) -> dict[str, Any]:
    ids = "string" if columns.string_ids else "int64"
    return {
        "user": columns.user,
        "item": columns.item,
        "timestamp": columns.timestamp,
        "behaviours": {name: name for name in columns.behaviours},
        "user_type": ids,
        "item_type": ids,
        "time_unit": columns.time_unit,
        "item_features": _features(columns, columns.item_file, columns.item, columns.item_features),
        "user_features": _features(columns, columns.user_file, columns.user, columns.user_features),
    }


def _features(columns: ColumnMapping, file: Path | None, key: str, names: Sequence[str]) -> FeatureSource | None:
    if file is None:
        return None
    return FeatureSource(
        file=file,
        layout="parquet" if file.suffix == ".parquet" else "csv",
        key=key,
        features={name: FeatureColumn(column=name, separator=columns.separators.get(name)) for name in names},
        delimiter=columns.delimiter,
    )

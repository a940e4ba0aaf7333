"""csv, json lines or Parquet files of any origin, with a mapping of their columns that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.formats.lake_table import lake_table
from unigrf_dist.prepare.source import ColumnMapping, FeatureColumn, FeatureSource, Layout, Source, find_files

_ENDINGS: dict[Layout, tuple[str, ...]] = {
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
    "parquet": (".parquet",),
}


def csv(raw: Path, columns: ColumnMapping) -> Source:
    """Delimited text with a header line; fields may be in double quotes."""
    return _source("csv", raw, columns)


def jsonl(raw: Path, columns: ColumnMapping) -> Source:
    """Text with one JSON object a line, whose keys are the columns."""
    return _source("jsonl", raw, columns)


def parquet(raw: Path, columns: ColumnMapping) -> Source:
    """Parquet files; those of a folder are taken in the order of their names."""
    if (table := lake_table(raw)) is not None:
        source = _source_of("parquet", table.files, columns)
        return replace(source, deleted=table.deleted, snapshot=table.snapshot)
    return _source("parquet", raw, columns)


def _source(layout: Layout, raw: Path, columns: ColumnMapping) -> Source:
    files, notes = _files(layout, raw)
    return replace(_source_of(layout, files, columns), notes=notes)


def _source_of(layout: Layout, files: Sequence[Path], columns: ColumnMapping) -> Source:
    ids = "string" if columns.string_ids else "int64"
    meaning: dict[str, Any] = {"user_type": ids, "item_type": ids}
    return Source(
        files=files,
        layout=layout,
        delimiter=columns.delimiter,
        quoted=columns.quoted,
        encoding=columns.encoding,
        partitions=columns.partitions,
        user=columns.user,
        item=columns.item,
        timestamp=columns.timestamp,
        behaviours=columns.named_behaviours,
        may_be_missing=True,
        buckets=columns.buckets,
        event_type=columns.event_type,
        time_unit=columns.time_unit,
        item_features=_features(columns, columns.item_file, columns.item, columns.item_features, columns.title),
        user_features=_features(columns, columns.user_file, columns.user, columns.user_features),
        **meaning,
    )


def _files(layout: Layout, raw: Path) -> tuple[list[Path], list[str]]:
    """The files of a folder, or if it has none those of the folders below, and a note of what is not read."""
    endings = _ENDINGS[layout]
    below = find_files(raw, *(f"**/*{ending}" for ending in endings)) if raw.is_file() else _below(raw, endings)
    files = [file for file in below if file.parent == raw] or below
    for file in files:
        if file.with_name(f"{file.name}.gz") in files:
            raise UserError(f"{file}: stands beside {file.name}.gz, which would count its events twice; keep one")
    unread = len(below) - len(files)
    return files, [f"{unread} files in folders below {raw} are not read: it holds files itself"] if unread else []


def _below(raw: Path, endings: Sequence[str]) -> list[Path]:
    every = [file for file in find_files(raw, "**/*") if file.name.endswith(tuple(endings))]
    if not every:
        raise UserError(
            f"{raw}: holds no {' or '.join(f'*{ending}' for ending in endings)}; name the file itself, or choose "
            "another format"
        )
    return every


def _features(
    columns: ColumnMapping, file: Path | None, key: str, names: Sequence[str], title: str | None = None
) -> FeatureSource | None:
    if file is None:
        return None
    layouts = (layout for layout, endings in _ENDINGS.items() if file.name.endswith(endings))
    return FeatureSource(
        file=file,
        layout=next(layouts, "csv"),
        key=key,
        title=title,
        features={name: FeatureColumn(column=name, separator=columns.separators.get(name)) for name in names},
        delimiter=columns.delimiter,
        quoted=columns.quoted,
        encoding=columns.encoding,
    )

"""Delta and Iceberg tables: which Parquet files their current snapshot consists of, and which rows are deleted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import Positions


@dataclass(frozen=True)
class LakeTable:
    """One snapshot of a table.

    Attributes:
        files: its Parquet files, those that were written first first.
        snapshot: which snapshot it is, for the manifest.
        deleted: rows that are deleted, by their files.
    """

    files: list[Path]
    snapshot: str
    deleted: Mapping[Path, Positions] = field(default_factory=dict)


def lake_table(raw: Path) -> LakeTable | None:
    """The table whose folder, or whose Iceberg metadata file, ``raw`` is; None if it is none.

    Raises:
        UserError: the table's package is not installed, or the table has what is not read here.
    """
    if (raw / "_delta_log").is_dir():
        return _delta(raw)
    if raw.name.endswith(".metadata.json"):
        return _iceberg(raw)
    if (raw / "metadata").is_dir() and any((raw / "metadata").glob("*.metadata.json")):
        return _iceberg(_newest_metadata(raw / "metadata"))
    return None


def _delta(raw: Path) -> LakeTable:
    deltalake = _package("deltalake", raw, "Delta")
    try:
        table = deltalake.DeltaTable(str(raw))
        actions = pa.table(table.get_add_actions(flatten=True))
        vectors = pa.table(table.deletion_vectors())
    except deltalake.exceptions.DeltaError as error:
        raise UserError(f"{raw}: the Delta table cannot be read: {' '.join(str(error).split())[:300]}") from error
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise UserError(
            f"{raw}: the Delta table renames columns (delta.columnMapping.mode); write it anew without"
        )
    if not actions.num_rows:
        raise UserError(f"{raw}: the Delta table is empty")
    written = zip(actions["modification_time"].to_pylist(), actions["path"].to_pylist(), strict=True)
    files = [_local(path, raw) for _, path in sorted(written)]
    deleted = {
        _local(row["filepath"], raw): np.flatnonzero(~np.array(row["selection_vector"], bool))
        for row in vectors.to_pylist()
    }
    return LakeTable(files, f"Delta version {table.version()}", deleted)


def _newest_metadata(folder: Path) -> Path:
    """The current metadata file: the one with the highest version, unless a hint names another.

    Raises:
        UserError: two writers have left the same version, of which only the catalogue knows the valid one.
    """
    versions = defaultdict(list)
    for file in folder.glob("*.metadata.json"):
        if match := re.match(r"v?(\d+)[.-]", file.name):
            versions[int(match[1])].append(file)
    hint = folder / "version-hint.text"
    if not versions:
        raise UserError(f"{folder}: holds no versions of Iceberg metadata; name the metadata file itself")
    version = int(hint.read_text()) if hint.exists() else max(versions)
    if len(versions[version]) != 1:
        raise UserError(f"{folder}: holds {len(versions[version])} metadata files of version {version}; name one")
    return versions[version][0]


def _iceberg(metadata: Path) -> LakeTable:
    _package("pyiceberg", metadata, "Iceberg")
    from pyiceberg.exceptions import NoSuchTableError
    from pyiceberg.manifest import DataFileContent
    from pyiceberg.table import StaticTable

    try:
        table = StaticTable.from_metadata(str(metadata.absolute()))
        tasks = list(table.scan().plan_files())
        entries = table.inspect.entries().to_pylist()
    except (NoSuchTableError, ValueError, OSError) as error:
        raise UserError(f"{metadata}: the Iceberg table cannot be read: {str(error)[:300]}") from error
    snapshot = table.current_snapshot()
    if snapshot is None or not tasks:
        raise UserError(f"{metadata}: the Iceberg table is empty")
    number = {entry["data_file"]["file_path"]: entry["sequence_number"] for entry in entries}
    files, deleted = [], {}
    for path, task in sorted(((task.file.file_path, task) for task in tasks), key=lambda x: (number[x[0]], x[0])):
        files.append(_local(path, metadata))
        for delete in task.delete_files:
            if delete.content != DataFileContent.POSITION_DELETES or delete.file_format != "PARQUET":
                raise UserError(
                    f"{metadata}: has deletes that are no positions in Parquet files; rewrite its data files first"
                )
        if task.delete_files:
            gone = pa.concat_tables(pq.read_table(_local(each.file_path, metadata)) for each in task.delete_files)
            deleted[files[-1]] = gone.filter(pc.field("file_path") == path)["pos"].to_numpy()
    return LakeTable(files, f"Iceberg snapshot {snapshot.snapshot_id}", deleted)


def _local(path: str, table: Path) -> Path:
    """The file of this machine that a table names by its path or URI."""
    parts = urlsplit(path)
    if parts.scheme not in ("", "file"):
        raise UserError(f"{table}: its files are on {parts.scheme}://; copy the table to this machine")
    return table / unquote(parts.path if parts.scheme else path)


def _package(name: str, raw: Path, kind: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError:
        raise UserError(
            f"{raw}: is a table of {kind}, which needs the package {name}: pip install 'unigrf-dist[{name}]'"
        ) from None

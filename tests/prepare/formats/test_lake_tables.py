"""Delta and Iceberg tables as raw data: their current files without deleted rows, and their snapshot by name."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.prepare.raw_files import refusal, sequences
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping

deltalake = pytest.importorskip("deltalake")
pytest.importorskip("pyiceberg")

EVENT = {"event": 1.0}
COLUMNS = ColumnMapping(user="u", item="i", timestamp="t")
FIRST = pa.table({"u": [1, 1, 2, 2], "i": [5, 6, 7, 5], "t": [10, 20, 30, 40]})
SECOND = pa.table({"u": [1, 3], "i": [8, 9], "t": [10, 50]})
BOTH = {
    1: [(5, EVENT, 10), (8, EVENT, 10), (6, EVENT, 20)],
    2: [(7, EVENT, 30), (5, EVENT, 40)],
    3: [(9, EVENT, 50)],
}
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


def without(events: dict[int, list[Any]], item: int) -> dict[int, list[Any]]:
    return {user: [event for event in rows if event[0] != item] for user, rows in events.items()}


def snapshots(out: Path) -> list[str]:
    return [file["snapshot"] for file in json.loads((out / "manifest.json").read_text())["raw_files"]]


def delta_table(folder: Path) -> Path:
    deltalake.write_deltalake(str(folder), FIRST)
    deltalake.write_deltalake(str(folder), SECOND, mode="append")
    return folder


def test_a_delta_table_is_read_as_of_its_current_version(tmp_path: Path) -> None:
    raw = delta_table(tmp_path / "raw")
    prepare("parquet", raw=raw, out=tmp_path / "before", columns=COLUMNS)
    assert sequences(tmp_path / "before") == BOTH
    assert snapshots(tmp_path / "before") == ["Delta version 1"] * 2
    deltalake.DeltaTable(str(raw)).delete("i = 5")
    prepare("parquet", raw=raw, out=tmp_path / "after", columns=COLUMNS)
    assert sequences(tmp_path / "after") == without(BOTH, 5)
    assert set(snapshots(tmp_path / "after")) == {"Delta version 2"}


def test_deletion_vectors_of_a_delta_table_are_honoured(tmp_path: Path) -> None:
    """A vector as the protocol writes it: rows 0 and 3 of the first file, as a portable roaring bitmap in Z85."""
    raw = delta_table(tmp_path / "raw")
    small = struct.pack("<IIHHIHH", 12346, 1, 0, 1, 16, 0, 3)
    bitmap = struct.pack("<IQI", 1681511377, 1, 0) + small
    text = base64.b85encode(bitmap).decode().translate(str.maketrans(_B85, _Z85))
    vector = {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(bitmap), "cardinality": 2}
    logs = sorted((raw / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in logs[0].read_text().splitlines()]
    added = next(action["add"] for action in actions if "add" in action)
    features = {"minReaderVersion": 3, "minWriterVersion": 7}
    features |= {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}  # type: ignore[dict-item]
    removed = {"path": added["path"], "deletionTimestamp": 1, "dataChange": True}
    changes = [{"protocol": features}, {"remove": removed}, {"add": {**added, "deletionVector": vector}}]
    lines = "".join(json.dumps(change) + "\n" for change in changes)
    (raw / "_delta_log" / f"{2:020}.json").write_text(lines)
    prepare("parquet", raw=raw, out=tmp_path / "out", columns=COLUMNS)
    assert sequences(tmp_path / "out") == {
        1: [(8, EVENT, 10), (6, EVENT, 20)],
        2: [(7, EVENT, 30)],
        3: [(9, EVENT, 50)],
    }


def iceberg_table(tmp_path: Path) -> Any:
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("test", uri="sqlite:///:memory:", warehouse=f"file://{tmp_path}/raw")
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.log", schema=FIRST.schema)
    table.append(FIRST)
    table.append(SECOND)
    return table


def test_an_iceberg_table_is_read_as_of_its_current_snapshot(tmp_path: Path) -> None:
    table = iceberg_table(tmp_path)
    raw = tmp_path / "raw" / "shop" / "log"
    prepare("parquet", raw=raw, out=tmp_path / "before", columns=COLUMNS)
    assert sequences(tmp_path / "before") == BOTH
    first = Path(table.metadata_location.removeprefix("file://"))
    table.delete("i = 5")
    prepare("parquet", raw=raw, out=tmp_path / "after", columns=COLUMNS)
    assert sequences(tmp_path / "after") == without(BOTH, 5)
    assert set(snapshots(tmp_path / "after")) == {f"Iceberg snapshot {table.current_snapshot().snapshot_id}"}
    prepare("parquet", raw=first, out=tmp_path / "again", columns=COLUMNS)
    assert sequences(tmp_path / "again") == BOTH


def test_rows_that_an_iceberg_table_deletes_by_position_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyiceberg cannot write such deletes: its plan is given a file as Spark writes it."""
    from pyiceberg.manifest import DataFileContent
    from pyiceberg.table import DataScan

    iceberg_table(tmp_path)
    plan_files = DataScan.plan_files

    class Deletes:
        content, file_format = DataFileContent.POSITION_DELETES, "PARQUET"
        file_path = f"file://{tmp_path}/deletes.parquet"

    def with_deletes(scan: DataScan) -> list[Any]:
        tasks = list(plan_files(scan))
        [first] = [task for task in tasks if task.file.record_count == FIRST.num_rows]
        others = [task.file.file_path for task in tasks if task is not first]
        gone = pa.table({"file_path": [first.file.file_path] * 2 + others, "pos": [3, 1, 0]})
        pq.write_table(gone, tmp_path / "deletes.parquet")
        first.delete_files.add(Deletes())
        return tasks

    monkeypatch.setattr(DataScan, "plan_files", with_deletes)
    prepare("parquet", raw=tmp_path / "raw" / "shop" / "log", out=tmp_path / "out", columns=COLUMNS)
    assert sequences(tmp_path / "out") == {
        1: [(5, EVENT, 10), (8, EVENT, 10)],
        2: [(7, EVENT, 30)],
        3: [(9, EVENT, 50)],
    }
    monkeypatch.setattr(Deletes, "content", DataFileContent.EQUALITY_DELETES)
    message = refusal(tmp_path / "no" / "out", "parquet", tmp_path / "raw" / "shop" / "log", columns=COLUMNS)
    assert "rewrite its data files" in message


def test_two_metadata_files_of_one_version_are_refused(tmp_path: Path) -> None:
    table = iceberg_table(tmp_path)
    newest = Path(table.metadata_location.removeprefix("file://"))
    (newest.parent / f"{newest.name[:5]}-another.metadata.json").write_bytes(newest.read_bytes())
    message = refusal(tmp_path / "no" / "out", "parquet", tmp_path / "raw" / "shop" / "log", columns=COLUMNS)
    assert "2 metadata files of version 2" in message


def test_a_table_whose_package_is_missing_is_not_read_as_plain_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = delta_table(tmp_path / "raw")
    monkeypatch.setitem(__import__("sys").modules, "deltalake", None)
    assert "pip install 'unigrf-dist[deltalake]'" in refusal(
        tmp_path / "no" / "out", "parquet", raw, columns=COLUMNS
    )

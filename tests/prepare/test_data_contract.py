"""A data set written by the rules of docs/data-contract.md with pyarrow alone is what ``prepare`` makes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.prepare.raw_files import sequences, write_raw
from unigrf_dist.data import open_dataset
from unigrf_dist.data.dataset import RowGroupReader
from unigrf_dist.prepare.inspect import examine
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping

ROW_GROUP, SHARD = 2, 4
# (user, item, time, stars) as they were recorded; ties in time, users of one event and of many, ids as text.
LOG = [
    *[("u9", "b", 50.25, 3), ("u9", "a", 50.25, 1), ("u10", "é", 7, 2), ("u1", "b", 3, 1), ("u1", "a", 2, 5)],
    *[("u1", "Z", 2, 5), ("u1", "b", 1, 3), ("ü", "c", 4, 1), ("u5", "a", 8, 2), ("u5", "c", 8, 2)],
    *[("u5", "a", 9, 3), ("U3", "Z", 6, 1), ("u7", "b", 5, 1), ("u7", "b", 5, 2)],
]


def record(folder: Path, file: str) -> dict[str, Any]:
    content = (folder / file).read_bytes()
    return {"file": file, "num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def write_by_the_rules(folder: Path) -> None:
    (folder / "sequences").mkdir(parents=True)
    items = sorted({item for _, item, *_ in LOG}, key=str.encode)
    users = sorted({user for user, *_ in LOG}, key=str.encode)
    stars = sorted({value for *_, value in LOG})
    rows, trained = [], Counter[int]()
    for user_id, user in enumerate(users):
        mine = [(time, place, item, value) for place, (who, item, time, value) in enumerate(LOG) if who == user]
        mine.sort()
        ids = [items.index(item) for *_, item, _ in mine]
        trained.update(ids if len(ids) < 3 else ids[:-2])
        codes = [stars.index(value) for *_, value in mine]
        rows.append((user_id, user, ids, codes, [int(time) for time, *_ in mine]))
    types: list[pa.DataType] = [pa.int64(), pa.string(), pa.list_(pa.int64()), pa.list_(pa.int16())]
    types.append(pa.list_(pa.int64()))
    names = ["user_id", "raw_user_id", "item_ids", "behaviours", "timestamps"]
    shards = []
    for first in range(0, len(rows), SHARD):
        part = rows[first : first + SHARD]
        columns = [pa.array(column, kind) for column, kind in zip(zip(*part, strict=True), types, strict=True)]
        file = f"sequences/part-{len(shards):05d}.parquet"
        pq.write_table(pa.table(columns, names=names), folder / file, row_group_size=ROW_GROUP)
        events = sum(len(ids) for _, _, ids, *_ in part)
        shards.append({**record(folder, file), "num_users": len(part), "num_events": events})
    counts = [trained[item] for item in range(len(items))]
    table = pa.table({"item_id": range(len(items)), "raw_id": items, "training_events": counts})
    pq.write_table(table, folder / "items.parquet")
    lengths = Counter(user for user, *_ in LOG)
    manifest = {
        "schema_version": 1,
        "source": "by hand",
        "arguments": {},
        "num_users": len(users),
        "num_items": len(items),
        "num_events": len(LOG),
        "num_training_events": sum(counts),
        "num_training_only_users": sum(length < 3 for length in lengths.values()),
        "first_timestamp": int(min(time for _, _, time, _ in LOG)),
        "last_timestamp": int(max(time for _, _, time, _ in LOG)),
        "behaviours": [{"stars": float(value)} for value in stars],
        "behaviour_counts": [sum(value == code for *_, value in LOG) for code in stars],
        "raw_user_type": "string",
        "raw_item_type": "string",
        "row_group_users": ROW_GROUP,
        "items": record(folder, "items.parquet"),
        "shards": shards,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_data_set_by_the_rules_of_the_page_is_read(tmp_path: Path) -> None:
    write_by_the_rules(tmp_path / "hand")
    dataset = open_dataset(tmp_path / "hand", verify=True)
    assert sequences(tmp_path / "hand")["u1"] == [
        ("b", {"stars": 3.0}, 1),
        ("a", {"stars": 5.0}, 2),
        ("Z", {"stars": 5.0}, 2),
        ("b", {"stars": 1.0}, 3),
    ]
    examine(dataset)
    reader = RowGroupReader(dataset)
    assert [reader.raw_user_ids(shard).to_pylist() for shard in (0, 1)] == [
        ["U3", "u1", "u10", "u5"],
        ["u7", "u9", "ü"],
    ]
    assert reader.read(1, 1).offsets.tolist() == [0, 1]


def test_prepare_keeps_the_rules_of_the_page(tmp_path: Path) -> None:
    write_by_the_rules(tmp_path / "hand")
    raw = write_raw(tmp_path, "log.csv", "u,i,t,stars", *(",".join(map(str, row)) for row in LOG))
    columns = ColumnMapping(user="u", item="i", timestamp="t", behaviours=("stars",), string_ids=True)
    prepare("csv", raw=raw, out=tmp_path / "out", columns=columns, row_group_users=ROW_GROUP, shard_users=SHARD)
    made, by_hand = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("out", "hand"))
    for field in set(by_hand) - {"source", "arguments", "items", "shards"}:
        assert made[field] == by_hand[field], field
    for one, other in zip(made["shards"], by_hand["shards"], strict=True):
        assert {**one, **other} == {**one, "num_bytes": other["num_bytes"], "sha256": other["sha256"]}
    for file in ("items.parquet", *(shard["file"] for shard in made["shards"])):
        one, other = (pq.ParquetFile(tmp_path / name / file) for name in ("out", "hand"))
        assert one.read().to_pylist() == other.read().to_pylist()
        groups = [[f.metadata.row_group(g).num_rows for g in range(f.num_row_groups)] for f in (one, other)]
        assert groups[0] == groups[1]

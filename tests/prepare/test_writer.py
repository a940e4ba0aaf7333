"""The files of a data set: row groups and shards of the requested sizes, ids, counts, hashes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.small_sets import RATINGS, distinct_users, write_users
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.writer import DatasetWriter


def test_users_are_cut_into_row_groups_and_shards(tmp_path: Path) -> None:
    write_users(tmp_path / "set", distinct_users([2] * 29), row_group_users=4, shard_users=10)
    shards = sorted((tmp_path / "set" / "sequences").iterdir())
    # A shard of 10 users is rounded up to 3 row groups of 4.
    assert [shard.name for shard in shards] == [f"part-0000{n}.parquet" for n in range(3)]
    groups = [
        [pq.ParquetFile(shard).metadata.row_group(n).num_rows for n in range(pq.ParquetFile(shard).num_row_groups)]
        for shard in shards
    ]
    assert groups == [[4, 4, 4], [4, 4, 4], [4, 1]]


def test_chunks_of_any_size_make_the_same_files(tmp_path: Path) -> None:
    users = distinct_users([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])
    write_users(tmp_path / "whole", users)
    (tmp_path / "chunks").mkdir()
    with DatasetWriter(
        tmp_path / "chunks",
        num_items=44,
        behaviours=RATINGS,
        raw_user_type="int64",
        raw_item_type="int64",
        row_group_users=4,
        shard_users=12,
    ) as writer:
        for number, user in enumerate(users):
            items, behaviours, times = np.array(user).T
            writer.add(pa.array([100 + number]), np.array([len(user)]), items, behaviours.astype(np.int16), times)
        writer.finish([pa.array(10 * np.arange(44))], source="test", arguments={})
    for file in sorted((tmp_path / "whole").rglob("*.*")):
        assert (tmp_path / "chunks" / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()


def test_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    write_users(tmp_path / "set", [[(1, 4, 50), (0, 2, 51)], [(1, 0, 7)]])
    table = pq.read_table(tmp_path / "set" / "sequences" / "part-00000.parquet")
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == {
        "user_id": "int64",
        "raw_user_id": "int64",
        "item_ids": "list<element: int64>",
        "behaviours": "list<element: int16>",
        "timestamps": "list<element: int64>",
    }
    assert table.to_pylist() == [
        {"user_id": 0, "raw_user_id": 100, "item_ids": [1, 0], "behaviours": [4, 2], "timestamps": [50, 51]},
        {"user_id": 1, "raw_user_id": 101, "item_ids": [1], "behaviours": [0], "timestamps": [7]},
    ]


def test_the_manifest_counts_what_was_written(tmp_path: Path) -> None:
    # Items 0 and 1 are for training, 2 validation, 3 test; the second user is too short to hold out.
    users = [[(0, 4, 10), (1, 4, 20), (2, 3, 30), (3, 0, 40)], [(3, 1, 5), (0, 1, 6)]]
    dataset = write_users(tmp_path / "set", users)
    said = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert {name: said[name] for name in ("num_users", "num_items", "num_events", "num_training_events")} == {
        "num_users": 2,
        "num_items": 4,
        "num_events": 6,
        "num_training_events": 4,
    }
    assert said["num_training_only_users"] == 1
    assert said["behaviour_counts"] == [1, 2, 0, 1, 2]
    assert (said["first_timestamp"], said["last_timestamp"]) == (5, 40)
    assert dataset.training_counts().tolist() == [2, 1, 0, 1]
    assert dataset.raw_item_ids().to_pylist() == [0, 10, 20, 30]


def test_the_manifest_holds_size_and_sha256_of_every_file(tmp_path: Path) -> None:
    manifest = write_users(tmp_path / "set", distinct_users([3] * 20)).manifest
    files = [manifest.items, *manifest.shards]
    assert len(files) == 3
    for record in files:
        content = (tmp_path / "set" / record.file).read_bytes()
        assert record.num_bytes == len(content)
        assert record.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["row_group_users", "shard_users"])
def test_sizes_below_one_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is 0; it must be at least 1"):
        write_users(tmp_path / "set", distinct_users([3]), **{name: 0})

"""Opening data sets: which damage is detected, when, and with which message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.small_sets import distinct_users, write_users
from unigrf_dist.data import TrainStream, open_dataset
from unigrf_dist.data.manifest import sha256
from unigrf_dist.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_users(tmp_path / "set", distinct_users([5] * 20)).path


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["sha256_of_the_rest"]
    change(manifest)
    file.write_text(json.dumps(manifest))


def refusal(folder: Path, **options: bool) -> str:
    with pytest.raises(UserError) as caught:
        open_dataset(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_intact_data_set_opens(folder: Path) -> None:
    dataset = open_dataset(str(folder), verify=True)
    assert (dataset.num_users, dataset.num_items) == (20, 100)


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    assert "manifest.json is missing" in refusal(tmp_path)
    assert "unigrf prepare" in refusal(tmp_path / "nowhere")


def test_a_manifest_that_is_no_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    assert "manifest.json" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(schema_version=2), "schema_version"),
        (lambda manifest: manifest.pop("num_items"), "num_items"),
        (lambda manifest: manifest.update(colour="red"), "colour"),
        (lambda manifest: manifest.update(num_users=21), "num_users is 21, but the shards' sum is 20"),
        (lambda manifest: manifest.update(num_events=-1), "num_events"),
        (lambda manifest: manifest["shards"].pop(), "the shards' sum is 12"),
        (lambda manifest: manifest["behaviours"].pop(), "behaviour_counts has 5 entries for 4 behaviours"),
    ],
    ids=["version", "key missing", "key unknown", "users", "negative", "shard dropped", "behaviours"],
)
def test_a_manifest_that_contradicts_itself(
    folder: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit_manifest(folder, change)
    assert message in refusal(folder)


@pytest.mark.parametrize("file", ["items.parquet", "sequences/part-00001.parquet"])
def test_a_missing_file(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert f"{file}: named in the manifest, but No such file" in refusal(folder)


@pytest.mark.parametrize("file", ["items.parquet", "sequences/part-00001.parquet"])
def test_a_truncated_file(folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1])
    assert f"{file}: {len(content) - 1} bytes, but the manifest says {len(content)}" in refusal(folder)


def test_changed_bytes_are_found_when_asked_for(folder: Path) -> None:
    file = folder / "sequences" / "part-00000.parquet"
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(bytes(content))
    open_dataset(folder)
    assert "part-00000.parquet: its SHA-256 is not the manifest's" in refusal(folder, verify=True)


def read_all(folder: Path) -> None:
    source = TrainStream(open_dataset(folder), global_batch_users=4, max_events=5, rank=0, world_size=1, seed=0)
    for _ in source.epoch(0):
        pass


def accept_size(folder: Path, file: str) -> None:
    """Write the present size and hash of ``file`` into the manifest."""

    def change(manifest: dict[str, Any]) -> None:
        for record in [manifest["items"], *manifest["shards"]]:
            if record["file"] == file:
                record["num_bytes"] = (folder / file).stat().st_size
                record["sha256"] = sha256(folder / file)

    edit_manifest(folder, change)


def test_a_shard_that_is_another(folder: Path) -> None:
    file = "sequences/part-00001.parquet"
    shutil.copy(folder / "sequences" / "part-00000.parquet", folder / file)
    accept_size(folder, file)
    with pytest.raises(UserError, match=r"part-00001\.parquet: 12 users, but the manifest says 8"):
        read_all(folder)


def test_a_shard_that_is_no_parquet(folder: Path) -> None:
    file = "sequences/part-00001.parquet"
    (folder / file).write_bytes(b"x" * 300)
    accept_size(folder, file)
    with pytest.raises(UserError, match=r"part-00001\.parquet: .*copy the data set again"):
        read_all(folder)


def test_lists_of_unequal_length(folder: Path) -> None:
    file = "sequences/part-00001.parquet"
    table = pq.read_table(folder / file)
    short = pa.array([times[:-1] for times in table.column("timestamps").to_pylist()], pa.list_(pa.int64()))
    pq.write_table(table.set_column(4, "timestamps", short), folder / file, row_group_size=4)
    accept_size(folder, file)
    with pytest.raises(UserError, match=r"row group \d: a user's lists differ in length"):
        read_all(folder)


def test_items_that_are_others(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / "items.parquet").slice(1), folder / "items.parquet")
    accept_size(folder, "items.parquet")
    with pytest.raises(UserError, match=r"items\.parquet: 99 items, but the manifest says 100"):
        open_dataset(folder).training_counts()

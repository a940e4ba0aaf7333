"""Writes raw files, and reads prepared sequences and refusals back."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.pipeline import prepare


def write_raw(folder: Path, name: str, *lines: str) -> Path:
    """Write lines into ``folder / name``, compressed if the name says so."""
    folder.mkdir(parents=True, exist_ok=True)
    content = "".join(line + "\n" for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


def sequences(out: Path) -> dict[Any, list[tuple[Any, dict[str, float], int]]]:
    """Raw user -> its events as (raw item, named behaviour values, seconds)."""
    from unigrf_dist.data import open_dataset

    dataset = open_dataset(out, verify=True)
    raw_items = dataset.raw_item_ids().to_pylist()
    users = [row for shard in dataset.manifest.shards for row in pq.read_table(out / shard.file).to_pylist()]
    assert [user["user_id"] for user in users] == list(range(dataset.num_users))
    return {
        user["raw_user_id"]: [
            (raw_items[item], dataset.manifest.behaviours[code], time)
            for item, code, time in zip(user["item_ids"], user["behaviours"], user["timestamps"], strict=True)
        ]
        for user in users
    }


def refusal(out: Path, format: str, raw: Path | list[Path], **options: Any) -> str:
    """The one-line error of ``prepare``, which must leave no files behind."""
    out.parent.mkdir(parents=True, exist_ok=True)
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        prepare(format, raw=raw, out=out, **options)
    assert sorted(out.parent.rglob("*")) == before
    message = str(caught.value)
    assert "\n" not in message
    return message

"""Damaged shards: every flipped bit and every impossible value is told before a batch holds it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.data.small_sets import distinct_users, write_users
from unigrf_dist.data import Dataset, TrainStream, open_dataset
from unigrf_dist.data.integrity import verify_file
from unigrf_dist.errors import UserError

USERS = distinct_users([4, 9, 1, 30, 7, 3, 12, 5])


def read_all(dataset: Dataset) -> None:
    list(TrainStream(dataset, global_batch_users=3, max_events=50, rank=0, world_size=1, seed=0).epoch(0))


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "sequences").iterdir())


def test_every_flipped_bit_of_a_shard_is_told(tmp_path: Path) -> None:
    write_users(tmp_path / "good", USERS)
    random = Random(3)
    for trial in range(60):
        folder = tmp_path / f"set-{trial}"
        shutil.copytree(tmp_path / "good", folder)
        shard = random.choice(shards(folder))
        content = bytearray(shard.read_bytes())
        bit = random.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(content)
        with pytest.raises(UserError, match=shard.name):
            read_all(open_dataset(folder))


def test_a_shard_is_hashed_once_while_it_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unigrf_dist.data import integrity

    dataset, hashed = write_users(tmp_path / "set", USERS), []
    honest = integrity.sha256
    monkeypatch.setattr(integrity, "sha256", lambda file: hashed.append(file.name) or honest(file))
    read_all(dataset)
    read_all(dataset)
    assert sorted(hashed) == [shard.name for shard in shards(tmp_path / "set")]


def test_a_shard_changed_between_two_epochs_is_told(tmp_path: Path) -> None:
    dataset = write_users(tmp_path / "set", USERS)
    read_all(dataset)
    shard = shards(tmp_path / "set")[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        verify_file(shard, dataset.manifest.shards[0])


@pytest.mark.parametrize(
    ("users", "problem"),
    [
        ([[(0, 1, 5), (7, 1, 6)]], "user 0: item id 7, but there are 7"),
        ([[(0, 1, 5)], [(-1, 1, 5)]], "user 1: item id -1, but there are 7"),
        ([[(0, 99, 5)]], "user 0: behaviour 99, but there are"),
        ([[(0, -1, 5)]], "user 0: behaviour -1, but there are"),
        ([[(0, 1, 2**63 - 1)]], "user 0: time 9223372036854775807 is out of range"),
        ([[(0, 1, 3)], [(0, 1, 5), (1, 1, 4)]], "user 1: an event is earlier than the one before it"),
    ],
)
def test_impossible_content_is_refused_with_its_user(
    tmp_path: Path, users: list[list[tuple[int, int, int]]], problem: str
) -> None:
    import numpy as np

    from unigrf_dist.data.integrity import check_content
    from unigrf_dist.data.sequences import Sequences, offsets_of

    dataset = write_users(tmp_path / "set", [[(0, 1, 1)], [(6, 2, 2)]], num_items=7)
    events = [event for user in users for event in user]
    items, behaviours, times = (np.array(column) for column in zip(*events, strict=True))
    sequences = Sequences(
        np.arange(len(users)),
        offsets_of(np.array([len(user) for user in users])),
        items,
        behaviours.astype(np.int16),
        times,
    )
    with pytest.raises(ValueError, match=problem):
        check_content(sequences, dataset.manifest)
    check_content(
        replace(sequences, item_ids=items * 0, behaviours=behaviours.astype(np.int16) * 0, timestamps=times * 0),
        dataset.manifest,
    )

"""Shares of a preparation, and a preparation that was killed: the bytes are those of one that ran through."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.prepare.raw_files import refusal, sequences, write_raw
from unigrf_dist.errors import UserError
from unigrf_dist.prepare import plan, tasks
from unigrf_dist.prepare.append import append
from unigrf_dist.prepare.compact import compact
from unigrf_dist.prepare.merging import merged
from unigrf_dist.prepare.pipeline import prepare, prepare_share
from unigrf_dist.prepare.source import ColumnMapping
from unigrf_dist.prepare.tasks import Share, parse_share

RATED = ColumnMapping(
    user="u", item="i", timestamp="t", behaviours=("rating",), string_ids=True, user_features=("city",)
)
# What is told of a preparation that dies in the middle of its sorting.
DYING = """
import os, sys
from pathlib import Path
from unigrf_dist.prepare import plan, tasks
from unigrf_dist.prepare.pipeline import prepare
plan._EVENTS_PER_BUCKET = 500
whole, sorted_buckets = tasks.write_run, []
def write_run(*arguments):
    sorted_buckets.append(1)
    if len(sorted_buckets) == 3:
        os._exit(9)
    return whole(*arguments)
tasks.write_run = write_run
prepare("movielens-1m", raw=Path(sys.argv[1]), out=Path(sys.argv[2]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def write_log(folder: Path, seed: int, users: int = 300, events: int = 1500) -> None:
    """Three files, with ties, duplicates, rare items and bad rows."""
    random = np.random.default_rng(seed)
    for number in range(3):
        columns = [(random.random(events) ** 2 * users).astype(int), random.integers(0, 80, events) ** 2 // 60]
        columns += [random.integers(0, 50, events), random.integers(1, 4, events)]
        rows = [f"u{u},i{i},{t},{r}" for u, i, t, r in zip(*columns, strict=True)]
        write_raw(folder, f"{number}.csv", "u,i,t,rating", *rows, *rows[:20], "u1,i1,soon,3")


@pytest.mark.parametrize(
    ("count", "options"), [(2, {}), (16, {"drop_duplicates": True, "min_events": 3, "min_item_events": 30})]
)
def test_shares_make_the_bytes_of_one_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, options: dict[str, Any]
) -> None:
    write_log(tmp_path / "raw", seed=1)
    city = write_raw(tmp_path, "users.csv", "u,city", *(f"u{user},c{user % 5}" for user in range(0, 300, 2)))
    columns = replace(RATED, user_file=city)
    common: dict[str, Any] = {"raw": tmp_path / "raw", "columns": columns, "on_bad_row": "skip", **options}
    prepare("csv", out=tmp_path / "one", **common)
    monkeypatch.setattr(plan, "_EVENTS_PER_BUCKET", 150)
    for _ in range(3):
        for index in np.random.default_rng(2).permutation(count):
            waits = prepare_share("csv", Share(int(index), count), out=tmp_path / "many", **common)
    assert waits is None
    monkeypatch.setattr(tasks, "stage_file", None)
    monkeypatch.setattr(tasks, "survey", None)
    monkeypatch.setattr(tasks, "write_run", None)
    prepare("csv", out=tmp_path / "many", **common)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert not list(tmp_path.glob(".*"))


def test_a_share_says_what_it_waits_for(tmp_path: Path) -> None:
    write_log(tmp_path / "raw", seed=1)
    columns = ColumnMapping(string_ids=True, user="u", item="i", timestamp="t")
    common: dict[str, Any] = {"raw": tmp_path / "raw", "out": tmp_path / "out", "columns": columns}
    common["on_bad_row"] = "skip"
    assert prepare_share("csv", Share(0, 3), **common) == "2 of 3 files are still to be read"
    with pytest.raises(UserError, match="other options"):
        prepare_share("csv", Share(1, 3), **{**common, "min_events": 2})


def test_shares_are_named_as_k_of_n() -> None:
    assert parse_share("3/16") == Share(3, 16)
    for wrong in ("16/16", "1", "-1/4", "a/b", "1/0"):
        with pytest.raises(UserError, match="K/N"):
            parse_share(wrong)


def test_a_killed_preparation_goes_on_behind_the_last_finished_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    rows = [f"{u}::{i}::{r}::{t}" for u, i, r, t in random.integers(1, 6, (3000, 4)) * [9, 7, 1, 100]]
    raw = write_raw(tmp_path / "raw", "ratings.dat", *rows)
    prepare("movielens-1m", raw=raw, out=tmp_path / "whole")
    monkeypatch.setattr(plan, "_EVENTS_PER_BUCKET", 500)
    died = subprocess.run([sys.executable, "-c", DYING, raw, tmp_path / "out"], check=False)
    assert died.returncode == 9
    assert not (tmp_path / "out").exists()
    done: list[str] = []
    for name in ("stage_file", "survey", "write_run"):
        original = getattr(tasks, name)
        monkeypatch.setattr(tasks, name, lambda *a, f=original, n=name: (done.append(n), f(*a))[1])
    prepare("movielens-1m", raw=raw, out=tmp_path / "out")
    num_buckets = -(-raw.stat().st_size // 24 // 500)
    assert num_buckets > 3
    assert done == ["write_run"] * (num_buckets - 2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_a_failed_preparation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_EVENTS_PER_BUCKET", 2)
    raw = write_raw(tmp_path / "raw", "ratings.dat", "1::2::3::4", "1::2::3::late")
    assert "late" in refusal(tmp_path / "out" / "set", "movielens-1m", raw)


def test_temporary_files_take_at_most_twelve_bytes_per_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_EVENTS_PER_BUCKET", 100_000)
    random, count = np.random.default_rng(4), 400_000
    log = {"u": random.integers(0, 4000, count), "i": (random.random(count) ** 3 * 20_000).astype(np.int64)}
    log |= {"t": 1_500_000_000 + np.sort(random.integers(0, 10**7, count)), "rating": random.integers(1, 6, count)}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    sizes: list[int] = []

    def measure(phase: str, share: float) -> None:
        found = [
            file for file in (tmp_path / ".out.staging").rglob("*") if file.is_file() and ".work" not in str(file)
        ]
        sizes.append(sum(file.stat().st_size for file in found))

    columns = ColumnMapping(user="u", item="i", timestamp="t", behaviours=("rating",))
    prepare("parquet", raw=tmp_path / "log.parquet", out=tmp_path / "out", columns=columns, progress=measure)
    assert count < max(sizes) < 12 * count


def test_a_day_joins_a_data_set_of_many_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events are those of all files prepared at once, whose ids may be others."""
    monkeypatch.setattr(plan, "_EVENTS_PER_BUCKET", 1000)
    columns = ColumnMapping(user="u", item="i", timestamp="t", behaviours=("rating",), string_ids=True)
    common: dict[str, Any] = {"columns": columns, "on_bad_row": "skip"}
    write_log(tmp_path / "raw", seed=5)
    raws = [tmp_path / "raw" / f"{number}.csv" for number in range(3)]
    later = write_raw(
        tmp_path, "later.csv", "u,i,t,rating", *(f"u{n % 350},i{n % 90},{90 + n},2" for n in range(500))
    )
    prepare("csv", raw=raws, out=tmp_path / "grown", **common)
    append("csv", raw=later, into=tmp_path / "grown", **common)
    prepare("csv", raw=[*raws, later], out=tmp_path / "whole", **common)
    compact(tmp_path / "grown")
    assert sequences(tmp_path / "grown") == sequences(tmp_path / "whole")


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(0, 2**62), st.integers(0, 4), max_size=40), st.integers(1, 4), st.booleans())
def test_merged_runs_are_in_the_order_of_the_ids(run_of: dict[int, int], size: int, text: bool) -> None:
    runs = [sorted(str(user) if text else user for user in run_of if run_of[user] == run) for run in range(5)]
    batches = [
        [
            pa.record_batch({"id": run[at : at + size], "n": [[user] for user in run[at : at + size]]})
            for at in range(0, len(run), size)
        ]
        for run in runs
    ]
    found = [row for batch in merged(batches) for row in batch.to_pylist()]
    assert [row["id"] for row in found] == sorted(user for run in runs for user in run)
    assert all(row["n"] == [row["id"]] for row in found)

"""Published counts of the public data sets; skipped without the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unigrf_dist.data import Dataset, EvaluationStream, TrainStream, open_dataset
from unigrf_dist.prepare.inspect import examine
from unigrf_dist.prepare.pipeline import prepare


@pytest.fixture(scope="module")
def ml_1m(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    raw = shared_data / "ml-1m" / "ratings.dat"
    if not raw.is_file():
        pytest.skip(f"{raw} is not there")
    out = tmp_path_factory.mktemp("sets") / "ml-1m"
    prepare("movielens-1m", raw=raw, out=out)
    return open_dataset(out, verify=True)


@pytest.fixture(scope="module")
def raw_rows(shared_data: Path) -> np.ndarray:
    text = (shared_data / "ml-1m" / "ratings.dat").read_text().replace("::", " ")
    return np.array(text.split(), dtype=np.int64).reshape(-1, 4)


def test_movielens_1m_has_the_published_counts(ml_1m: Dataset) -> None:
    manifest = ml_1m.manifest
    assert (manifest.num_users, manifest.num_items, manifest.num_events) == (6040, 3706, 1_000_209)
    assert manifest.behaviours == [{"rating": float(stars)} for stars in range(1, 6)]
    assert manifest.behaviour_counts == [56_174, 107_557, 261_197, 348_971, 226_310]
    assert manifest.skipped_rows.count == manifest.num_unsorted_users == manifest.num_training_only_users == 0
    lengths = examine(ml_1m).lengths
    assert (lengths.min(), np.median(lengths), lengths.max()) == (20, 96, 2314)


def test_movielens_1m_trains_on_all_but_the_last_two_events(ml_1m: Dataset, raw_rows: np.ndarray) -> None:
    """The file is sorted by user and time, so that the held-out rows are the last two of each user's block."""
    last = np.append(np.flatnonzero(np.diff(raw_rows[:, 0])), len(raw_rows) - 1)
    trained = np.delete(raw_rows, np.concatenate([last, last - 1]), axis=0)
    raw_items = ml_1m.raw_item_ids().to_numpy()
    stream = TrainStream(ml_1m, global_batch_users=512, max_events=5000, rank=0, world_size=1, seed=0)
    users, rows = [], []
    for batch in stream.epoch(0):
        users.append(batch.user_ids.repeat_interleave(batch.lengths).numpy())
        rows.append(np.stack([raw_items[batch.item_ids], batch.behaviours + 1, batch.timestamps], axis=1))
    user = np.concatenate(users)
    order = np.argsort(user, kind="stable")
    found = np.column_stack([user[order] + 1, np.concatenate(rows)[order]])
    assert np.array_equal(found, trained)


@pytest.mark.parametrize(("split", "from_the_end"), [("test", 1), ("validation", 2)])
def test_movielens_1m_evaluates_every_user_once(
    ml_1m: Dataset, raw_rows: np.ndarray, split: str, from_the_end: int
) -> None:
    last = np.append(np.flatnonzero(np.diff(raw_rows[:, 0])), len(raw_rows) - 1)
    expected = raw_rows[last + 1 - from_the_end]
    raw_items = ml_1m.raw_item_ids().to_numpy()
    targets, num_seen = np.zeros((6040, 3), np.int64), np.zeros(6040, np.int64)
    for rank in range(2):
        stream = EvaluationStream(
            ml_1m,
            split=split,  # type: ignore[arg-type]
            batch_users=300,
            max_events=200,
            rank=rank,
            world_size=2,
        )
        for evaluated in stream:
            batch = evaluated.batch
            at = batch.offsets[1:] - 1
            rows = [raw_items[batch.item_ids[at]], batch.behaviours[at] + 1, batch.timestamps[at]]
            targets[batch.user_ids] += np.stack(rows, axis=1)
            num_seen[batch.user_ids] += evaluated.seen_offsets.diff().numpy()
    assert np.array_equal(targets, expected[:, 1:])
    assert np.array_equal(num_seen, np.bincount(raw_rows[:, 0])[1:] - from_the_end)


def test_movietweetings_has_its_published_counts(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "movietweetings"
    if not raw.is_dir():
        pytest.skip(f"{raw} is not there")
    manifest = prepare("movietweetings", raw=raw, out=tmp_path / "out").manifest
    assert (manifest.num_users, manifest.num_items, manifest.num_events) == (21_081, 12_611, 141_695)
    lengths = examine(open_dataset(tmp_path / "out")).lengths
    assert (lengths >= 50).sum() == 405
    assert {rating for behaviour in manifest.behaviours for rating in behaviour.values()} <= set(
        map(float, range(11))
    )

"""Synthetic data: the planted structure exists and differs from popularity; files, sizes, refused arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unigrf_dist.data import Dataset, EvaluationStream, TrainStream, open_dataset
from unigrf_dist.errors import UserError
from unigrf_dist.synthetic import synthesize
from unigrf_dist.synthetic.world import World, build_world


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("synthetic") / "set"
    synthesize(out, num_users=1500, num_items=400, mean_length=30, seed=1)
    return open_dataset(out, verify=True)


@pytest.fixture(scope="module")
def world() -> World:
    """The world that ``dataset`` was drawn from."""
    return build_world(
        num_items=400,
        num_groups=8,
        num_tastes=12,
        zipf_exponent=1.0,
        successor_share=0.25,
        random=np.random.default_rng([1, 0]),
    )


@pytest.fixture(scope="module")
def users(dataset: Dataset) -> list[dict[str, np.ndarray]]:
    """All events of every user, the test event included."""
    events_of_users = []
    whole = EvaluationStream(dataset, split="test", batch_users=500, max_events=10**6, rank=0, world_size=1)
    for evaluated in whole:
        batch = evaluated.batch
        for user in range(batch.num_users):
            events = slice(int(batch.offsets[user]), int(batch.offsets[user + 1]))
            columns = ("item_ids", "behaviours", "timestamps")
            events_of_users.append({name: getattr(batch, name)[events].numpy() for name in columns})
    return events_of_users


def test_sizes_are_as_asked(dataset: Dataset, users: list[dict[str, np.ndarray]]) -> None:
    assert (dataset.num_users, dataset.num_items, len(users)) == (1500, 400, 1500)
    lengths = np.array([len(user["item_ids"]) for user in users])
    assert 28 < lengths.mean() < 32
    assert lengths.min() >= 5
    assert lengths.max() <= 100


def test_no_user_sees_an_item_twice(users: list[dict[str, np.ndarray]]) -> None:
    for user in users:
        assert len(np.unique(user["item_ids"])) == len(user["item_ids"])


def test_time_never_runs_back_and_has_sessions(users: list[dict[str, np.ndarray]]) -> None:
    gaps = np.concatenate([np.diff(user["timestamps"]) for user in users])
    assert gaps.min() >= 0
    # One gap in eight is a pause of days on average.
    assert 0.09 < (gaps > 3600).mean() < 0.13


def test_items_follow_their_successors(users: list[dict[str, np.ndarray]], world: World) -> None:
    """At the first step hardly any successor has been seen, and other draws seldom hit one."""
    in_world = np.argsort(world.item_ids)
    first, second = (in_world[[user["item_ids"][n] for user in users]] for n in (0, 1))
    share = (world.successors[first] == second[:, None]).mean(axis=0)
    error = np.sqrt(0.25 * np.array([0.6, 0.3, 0.1]) / len(users))
    assert np.all(np.abs(share - 0.25 * np.array([0.6, 0.3, 0.1]) - 1 / 400) < 4 * error)


def test_ratings_depend_on_taste_and_not_only_on_the_item(dataset: Dataset) -> None:
    """The mean of an item's training ratings ranks the test events far worse than the optimum."""
    num_positive, num_events = np.zeros(400), np.zeros(400)
    for batch in TrainStream(
        dataset, global_batch_users=500, max_events=10**6, rank=0, world_size=1, seed=0
    ).epoch(0):
        np.add.at(num_positive, batch.item_ids.numpy(), (batch.behaviours >= 3).numpy())
        np.add.at(num_events, batch.item_ids.numpy(), 1)
    scores, labels = [], []
    for evaluated in EvaluationStream(dataset, split="test", batch_users=500, max_events=1, rank=0, world_size=1):
        last = evaluated.batch.offsets[1:] - 1
        items = evaluated.batch.item_ids[last].numpy()
        scores.append((num_positive[items] + 1) / (num_events[items] + 2))
        labels.append((evaluated.batch.behaviours[last] >= 3).numpy())
    by_item = roc_auc_score(np.concatenate(labels), np.concatenate(scores))
    optimum = planted(dataset)["test"]["ranking"]["rating >= 4"]["auc"]
    assert 0.75 < optimum < 0.9
    assert 0.52 < by_item < optimum - 0.1


def test_the_optimum_finds_three_times_as_much_as_popularity(dataset: Dataset) -> None:
    popularity = dataset.training_counts()
    hits, users = 0, 0
    for evaluated in EvaluationStream(dataset, split="test", batch_users=500, max_events=1, rank=0, world_size=1):
        batch = evaluated.batch
        for user, target in enumerate(batch.item_ids[batch.offsets[1:] - 1].tolist()):
            scores = popularity.clone()
            scores[evaluated.seen_item_ids[evaluated.seen_offsets[user] : evaluated.seen_offsets[user + 1]]] = -1
            hits += int((scores > scores[target]).sum()) < 10
            users += 1
    assert planted(dataset)["test"]["retrieval"]["hr@10"] > 3 * hits / users


def planted(dataset: Dataset) -> Any:
    return json.loads((dataset.path / "planted.json").read_text())


def test_popularity_is_skewed(dataset: Dataset) -> None:
    counts = np.sort(dataset.training_counts().numpy())[::-1]
    assert counts[:40].sum() > 0.3 * counts.sum()


def test_planted_metrics_have_the_names_of_the_protocol(dataset: Dataset) -> None:
    for split in ("validation", "test"):
        metrics = planted(dataset)[split]
        names = ["hr@1", "hr@10", "hr@50", "hr@200", "ndcg@10", "ndcg@50", "ndcg@200", "mrr"]
        assert list(metrics["retrieval"]) == names
        assert list(metrics["ranking"]["rating >= 4"]) == ["auc", "log_loss"]


def test_the_same_seed_makes_the_same_data(tmp_path: Path) -> None:
    sizes = {"num_users": 300, "num_items": 100, "mean_length": 8.0}
    makes = [
        synthesize(tmp_path / str(n), seed=seed, **sizes).manifest  # type: ignore[arg-type]
        for n, seed in enumerate((7, 7, 8))
    ]
    assert makes[0] == makes[1]
    assert makes[0].shards != makes[2].shards


def test_users_are_drawn_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unigrf_dist.synthetic.generate._CHUNK_USERS", 64)
    shares: list[float] = []
    synthesize(
        tmp_path / "set",
        num_users=150,
        num_items=100,
        mean_length=8,
        progress=lambda _, share: shares.append(share),
    )
    assert shares == [64 / 150, 128 / 150, 1.0]
    assert open_dataset(tmp_path / "set").num_users == 150


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_users": 0}, "num_users is 0; it must be at least 1"),
        ({"num_groups": 0}, "num_groups is 0; it must be at least 1"),
        ({"num_tastes": 0}, "num_tastes is 0; it must be at least 1"),
        ({"mean_length": 5}, "mean_length is 5; it must be a number above 5"),
        ({"num_items": 100, "mean_length": 30}, "num_items is 100; it must be at least 4 times mean_length"),
        ({"num_items": 300, "num_groups": 301}, "and at least num_groups: 301 here"),
        ({"successor_share": 1.0}, "successor_share is 1; it must be in"),
        ({"zipf_exponent": -1.0}, "zipf_exponent is -1; it must be at least 0"),
    ],
)
def test_impossible_sizes_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        synthesize(tmp_path / "o" / "out", **options)
    assert not (tmp_path / "o").exists()


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not empty"):
        synthesize(tmp_path, num_users=10)

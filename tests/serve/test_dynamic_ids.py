"""Evaluation and lists of a run with dynamic ids, whose raw ids are as large as they can be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.data.small_sets import RATINGS
from tests.spawn import run_ranks
from tests.train.small_run import small_config
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.writer import DatasetWriter
from unigrf_dist.serve import Recommender

NUM_ITEMS, CAPACITY, EVENTS, LARGEST = 30, 11, 9, 2**63 - 1
RAW = [LARGEST - 7 * item for item in range(NUM_ITEMS)]
SEEN = [3, 29, 4, 4, 17, 8, 21, 3]
"""Items of a batch that gives rows."""


def write_data(folder: Path) -> np.ndarray:
    """40 users of ``EVENTS`` items each, ``[40, EVENTS]``."""
    folder.mkdir()
    items = np.random.default_rng(2).integers(NUM_ITEMS, size=(40, EVENTS))
    with DatasetWriter(
        folder,
        num_items=NUM_ITEMS,
        behaviours=RATINGS,
        raw_user_type="int64",
        raw_item_type="int64",
        row_group_users=8,
        shard_users=40,
    ) as writer:
        flat = items.flatten()
        times = np.tile(np.arange(EVENTS), 40)
        writer.add(pa.array(np.arange(40)), np.full(40, EVENTS), flat, (flat % 5).astype(np.int16), times)
        writer.finish([pa.array(RAW)], source="test", arguments={})
    return items


def store(run: str, data: str, batches: list[list[int]]) -> dict[str, Any]:
    """Write a checkpoint of drawn weights after ``batches`` of items; what evaluation says of it."""
    import torch

    from unigrf_dist.config import save_config
    from unigrf_dist.data.vocabularies import Vocabularies
    from unigrf_dist.evaluate.evaluator import evaluate
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    ids = {"kind": "dynamic", "capacity": CAPACITY, "admit_after": 1}
    config = small_config(data__path=data, tables__ids=ids)
    parts = build_parts(config, start(60))
    assert parts.table.live is not None
    for step, items in enumerate(batches):
        parts.table.live.observe(torch.tensor(items), step)
    torch.manual_seed(3)
    with torch.no_grad():
        for shard in parts.table.shards():
            shard.weight.normal_()
    Path(run).mkdir()
    save_config(config, Path(run) / "config.yaml")
    vocabularies = Vocabularies.of(parts.dataset)
    Checkpoints(Path(run), parts.engine, parts.table, keep=1, vocabularies=vocabularies).save(
        TrainState(), best=True
    )
    result = evaluate(
        parts.scorer,
        parts.dataset,
        split="test",
        batch_users=7,
        max_events=12,
        bootstrap_samples=0,
        rank=0,
        world_size=1,
        comparisons=True,
    )
    retrieval = {name: table.values()["retrieval"] for name, table in result.baselines.items()}
    return {"model": result.metrics()["retrieval"], "candidates": result.protocol["candidates"], **retrieval}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, dict, dict]:
    folder = tmp_path_factory.mktemp("dynamic")
    items = write_data(folder / "data")
    some, none = run_ranks(1, both, str(folder))[0]
    return folder, items, some, none


def both(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    some = store(f"{folder}/some", f"{folder}/data", [SEEN[:3], SEEN[3:]])
    return some, store(f"{folder}/none", f"{folder}/data", [])


def history(items: np.ndarray) -> list[tuple]:
    return [(RAW[item], RATINGS[item % 5], time) for time, item in enumerate(items.tolist())]


def is_new(items: np.ndarray) -> np.ndarray:
    """``[users]`` bool, whether the held-out item is none of the user's earlier ones."""
    return np.array([user[-1] not in user[:-1] for user in items])


def test_lists_hold_live_items_alone_and_have_evaluations_hit_rate(stored: tuple) -> None:
    folder, items, said, _ = stored
    recommender, live = Recommender(folder / "some"), {RAW[item] for item in SEEN}
    gains, listed = [], set()
    for user in items:
        entries = recommender.recommend(history=history(user[:-1]), at=EVENTS - 1, k=10, seen="exclude").entries
        listed |= {entry.item for entry in entries}
        gains += [1 / math.log2(1 + n) for n, e in enumerate(entries, 1) if e.item == RAW[user[-1]]]
    assert listed == live
    assert LARGEST - 7 * 3 in listed
    assert said["candidates"] == len(live)
    # Users whose held-out item they have met before are no users of retrieval.
    assert said["model"]["ndcg@10"] == pytest.approx(sum(gains) / is_new(items).sum(), abs=1e-12)


def test_nobody_finds_an_item_without_a_row(stored: tuple) -> None:
    folder, items, said, none = stored
    possible = np.isin(items[is_new(items), -1], SEEN).mean()
    assert 0 < possible < 1
    for name in ("model", "popularity", "most_recent"):
        # There are fewer candidates than 10.
        assert said[name]["hr@10"] == pytest.approx(possible)
        assert none[name]["hr@10"] == none[name]["mrr"] == none[name]["ndcg@10"] == 0.0
    assert none["candidates"] == 0
    assert Recommender(folder / "none").recommend(history=history(items[0]), k=5).entries == []
    assert Recommender(folder / "none").recommend(user=10**6, k=5).entries == []


def test_popular_items_are_live_and_an_item_without_a_row_can_not_be_asked_for(stored: tuple) -> None:
    recommender = Recommender(stored[0] / "some")
    popular = recommender.recommend(user=10**6, k=10)
    assert popular.source == "popularity"
    assert {entry.item for entry in popular} == {RAW[item] for item in SEEN}
    with pytest.raises(UserError, match="leave no item of the catalogue"):
        recommender.recommend(history=history(stored[1][0]), allow=[RAW[0]])

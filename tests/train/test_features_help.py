"""A planted side feature helps where histories are short; evaluation with features is the same on any ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.spawn import run_ranks
from unigrf_dist.config.schema import Config
from unigrf_dist.synthetic import synthesize
from unigrf_dist.synthetic.features import GROUP, TASTE

PLANTED = {"item_features": [GROUP], "user_features": [TASTE]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "data"
    synthesize(folder, num_users=1200, num_items=200, mean_length=7, num_tastes=6, seed=1, successor_share=0.0)
    return folder


def config(data: Path, features: dict[str, list[str]]) -> Config:
    width = {"width": 16, "blocks": 1, "heads": 1, "head_width": 16, "dropout": 0.1}
    return Config.model_validate(
        {
            "data": {"path": data, "max_events": 16},
            "model": {**width, **features},
            "tables": {"learning_rate": 1e-2},
            "objective": {"ranking": [{"rule": "rating >= 4"}]},
            "train": {"epochs": 12, "global_batch_users": 120, "selection": {"every": "12 epochs"}},
            "deepspeed": {
                "zero_optimization": {"stage": 1},
                "optimizer": {"type": "AdamW", "params": {"lr": 1e-2}},
            },
        }
    )


def metrics(config: Config, run: Path, train: bool) -> dict[str, Any]:
    """Test metrics of a run, trained first or taken from its checkpoint."""
    from unigrf_dist.data.vocabularies import Vocabularies
    from unigrf_dist.evaluate.evaluator import evaluate
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.loop import Trainer

    runtime = start(120)
    parts = build_parts(config, runtime)
    if train:
        run.mkdir()
        Trainer(parts, run, resume=False).run()
    else:
        vocabularies = Vocabularies.of(parts.dataset)
        Checkpoints(run, parts.engine, parts.table, keep=1, vocabularies=vocabularies).load(
            "latest", weights_only=True
        )
    result = evaluate(
        parts.scorer,
        parts.dataset,
        split="test",
        batch_users=64,
        max_events=config.data.max_events,
        rank=runtime.rank,
        world_size=runtime.world_size,
        bootstrap_samples=0,
    )
    return result.metrics()


@pytest.fixture(scope="module")
def with_features(data: Path) -> dict[str, Any]:
    (found,) = run_ranks(1, metrics, config(data, PLANTED), data.parent / "with", True)
    return found


def test_planted_features_help_both_tasks(data: Path, with_features: dict[str, Any]) -> None:
    """Seven events hardly tell a taste, nor eight thousand the groups of 200 items; the features do."""
    (without,) = run_ranks(1, metrics, config(data, {}), data.parent / "without", True)
    assert with_features["retrieval"]["ndcg@10"] > without["retrieval"]["ndcg@10"] + 0.01
    assert with_features["ranking"]["rating >= 4"]["auc"] > without["ranking"]["rating >= 4"]["auc"] + 0.05


def test_two_ranks_evaluate_to_the_metrics_of_one(data: Path, with_features: dict[str, Any]) -> None:
    for found in run_ranks(2, metrics, config(data, PLANTED), data.parent / "with", False):
        assert found == with_features

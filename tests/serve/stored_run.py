"""Runs on disk whose weights are drawn, and what evaluation says of them, by training's own engine and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.train.small_run import small_config

MAX_EVENTS = 5
RULES = [{"rule": "rating >= 4"}, {"rule": "rating >= 2"}]


def store_run(run: str, data: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Write a checkpoint of drawn weights; on one rank.

    Returns:
        Metrics of the test split, and by dense user id the logits of the held-out event and its batch of one.
    """
    from unigrf_dist.ranks.runtime import start

    return _said(_store(run, data, changes, seed=3, runtime=start(60)))


def store_runs(folder: str, data: str, runs: dict[str, tuple[int, dict[str, Any]]]) -> None:
    """Write several runs, each by its name in ``folder``, of a seed and changes; on one rank."""
    from unigrf_dist.ranks.runtime import start

    runtime = start(60)
    for name, (seed, changes) in runs.items():
        _store(str(Path(folder) / name), data, changes, seed=seed, runtime=runtime)


def _store(run: str, data: str, changes: dict[str, Any], *, seed: int, runtime: Any) -> Any:
    from unigrf_dist.config import save_config
    from unigrf_dist.data.vocabularies import Vocabularies
    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    config = small_config(
        data__path=data, data__max_events=MAX_EVENTS, objective__ranking=RULES, evaluate__batch_users=7, **changes
    )
    parts = build_parts(config, runtime)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in parts.engine.module.parameters():
            parameter.normal_(std=0.4)
        for shard in parts.table.shards():
            shard.weight.normal_()
    Path(run).mkdir()
    save_config(config, Path(run) / "config.yaml")
    vocabularies = Vocabularies.of(parts.dataset)
    Checkpoints(Path(run), parts.engine, parts.table, keep=1, vocabularies=vocabularies).save(
        TrainState(), best=True
    )
    return parts


def _said(parts: Any) -> dict[str, Any]:
    from unigrf_dist.data import EvaluationStream
    from unigrf_dist.evaluate.evaluator import evaluate

    ranks = {"rank": 0, "world_size": 1}
    result = evaluate(
        parts.scorer,
        parts.dataset,
        split="test",
        batch_users=7,
        max_events=MAX_EVENTS,
        bootstrap_samples=0,
        **ranks,
    )
    stream = EvaluationStream(parts.dataset, split="test", batch_users=7, max_events=MAX_EVENTS, **ranks)
    logits = {}
    for batch in stream:
        scores = parts.scorer.score(batch.batch).ranking_logits
        logits |= dict(zip(batch.batch.user_ids.tolist(), scores.tolist(), strict=True))
    return {"retrieval": result.metrics()["retrieval"], "logits": logits}

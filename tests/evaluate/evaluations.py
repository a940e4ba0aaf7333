"""The evaluation that the tests run, in this process or on a rank.

A module of its own, so that ranks need not import what only the tests use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.evaluate.small_data import LastEventModel
from unigrf_dist.data import open_dataset
from unigrf_dist.evaluate.evaluator import EvaluationResult, evaluate


def evaluated(data: Path, rank: int = 0, world_size: int = 1, **changes: Any) -> EvaluationResult:
    settings = {"split": "test", "batch_users": 6, "max_events": 5, "bootstrap_samples": 50, "comparisons": True}
    return evaluate(
        LastEventModel(rank, world_size),
        open_dataset(data),
        rank=rank,
        world_size=world_size,
        **{**settings, **changes},
    )


def both_splits(data: str, rank: int = 0, world_size: int = 1) -> list[dict]:
    results = [evaluated(Path(data), rank, world_size, split=split) for split in ("test", "validation")]
    return [
        {"model": r.model.to_dict(), "bins": r.model.calibration_bins, "n": r.num_users}
        | {name: table.to_dict() for name, table in r.baselines.items()}
        for r in results
    ]


def both_splits_on_this_rank(data: str) -> list[dict]:
    return both_splits(data, dist.get_rank(), dist.get_world_size())


def retrieval_on_targets(data: str, rule: str) -> dict[str, dict]:
    return evaluated(Path(data), dist.get_rank(), dist.get_world_size(), targets=rule).metrics()

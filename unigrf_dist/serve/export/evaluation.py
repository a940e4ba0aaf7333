"""Evaluation of what an export holds, in one process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.evaluate.catalogue import ShardedCatalogue
from unigrf_dist.evaluate.evaluator import evaluate
from unigrf_dist.evaluate.live_catalogue import LiveCatalogue
from unigrf_dist.model.table_shard import TableShard
from unigrf_dist.model.unigrf import SequenceScores
from unigrf_dist.serve.loaded import LoadedRun


class _Scorer:
    """A loaded model as evaluation sees it."""

    def __init__(self, run: LoadedRun) -> None:
        self._run = run
        self.task_names, self.task_labels = run.tasks, run.model.labels[:, : run.model.num_tasks]

    @torch.no_grad()
    def score(self, batch: JaggedBatch) -> SequenceScores:
        scores: SequenceScores = self._run.model(self._run.tables.events(batch), batch)
        return scores

    def catalogue(self) -> ShardedCatalogue | LiveCatalogue:
        items, live = self._run.tables.items, self._run.tables.live
        if live is not None:
            # As in training: a row for each live item, and a last one that all others share.
            items = torch.cat([items[live], items.new_zeros(1, items.shape[1])])
        rows = ShardedCatalogue(
            [TableShard(0, 0, items)],
            num_items=len(items),
            dim=self._run.config.model.width,
            normalize=self._run.config.objective.retrieval.normalize,
        )
        if live is None:
            return rows
        return LiveCatalogue(rows, (live.cumsum(0) - 1).masked_fill(~live, len(items) - 1))

    def live_items(self) -> Tensor | None:
        return self._run.tables.live


def evaluated(run: LoadedRun) -> dict[str, Any]:
    """The record of the test split as in ``metrics.json``.

    Args:
        run: the run, with the tables that the export holds.
    """
    assert run.dataset is not None, "an export is made from a run's folder"
    result = evaluate(
        _Scorer(run),
        run.dataset,
        split="test",
        batch_users=run.config.evaluate.batch_users,
        max_events=run.config.data.max_events,
        rank=0,
        world_size=1,
        targets=run.config.objective.retrieval.targets,
        bootstrap_samples=run.config.evaluate.bootstrap_samples,
    )
    return {
        "checkpoint": run.checkpoint,
        "num_users": result.num_users,
        "protocol": result.protocol,
        "model": result.model.to_dict(),
    }

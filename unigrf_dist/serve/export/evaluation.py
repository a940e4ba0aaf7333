"""Evaluation of what an export holds, in one process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.evaluate.catalogue import ShardedCatalogue
from unigrf_dist.evaluate.evaluator import evaluate
from unigrf_dist.model.table_shard import TableShard
from unigrf_dist.model.unigrf import SequenceScores
from unigrf_dist.serve.dense_tables import DenseTables
from unigrf_dist.serve.export.contents import stored_table
from unigrf_dist.serve.loaded import LoadedRun


class _Scorer:
    """A loaded model as evaluation sees it."""

    def __init__(self, run: LoadedRun, tables: DenseTables) -> None:
        self._run, self._tables = run, tables
        self.task_names, self.task_labels = run.tasks, run.model.labels[:, : run.model.num_tasks]

    @torch.no_grad()
    def score(self, batch: JaggedBatch) -> SequenceScores:
        scores: SequenceScores = self._run.model(self._tables.events(batch), batch)
        return scores

    def catalogue(self) -> ShardedCatalogue:
        return ShardedCatalogue(
            [TableShard(0, 0, self._tables.items)],
            num_items=len(self._run.items),
            dim=self._run.config.model.width,
            normalize=self._run.config.objective.retrieval.normalize,
        )


def evaluated(run: LoadedRun, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The record of the test split as in ``metrics.json``, with the tables as the export stores them.

    Args:
        run: the run that is exported.
        tensors: what the export holds.
    """
    assert run.dataset is not None, "an export is made from a run's folder"
    tables = DenseTables({name: stored_table(tensors, name) for name in run.tables.weights}, run.tables.features)
    result = evaluate(
        _Scorer(run, tables),
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

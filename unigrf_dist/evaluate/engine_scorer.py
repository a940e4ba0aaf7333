"""The trained model as a scorer of evaluation: its engine, and the catalogue on the shards of its table."""

from __future__ import annotations

from typing import Any

import torch

from unigrf_dist.config import Config
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.evaluate.catalogue import ShardedCatalogue
from unigrf_dist.evaluate.live_catalogue import LiveCatalogue
from unigrf_dist.model.tables import ItemTable
from unigrf_dist.model.unigrf import SequenceScores


class EngineScorer:
    """Scores sequences with an engine and a table; all methods are collective.

    Args:
        config: configuration of the run.
        engine: DeepSpeed engine over ``UniGRF``.
        table: item table.
        labels: ``[num_behaviours][A]`` label of each behaviour code under each ranking task, NaN if none.
    """

    def __init__(self, config: Config, engine: Any, table: ItemTable, labels: list[list[float]]) -> None:
        self.config, self.engine, self.table = config, engine, table
        self.task_names = [task.rule for task in config.objective.ranking]
        self.task_labels = torch.tensor(labels)

    @torch.no_grad()
    def score(self, batch: JaggedBatch) -> SequenceScores:
        """Scores of sequences that end with the event to predict."""
        self.engine.eval()
        on_device = batch.to(self.table.device)
        items, side, _ = self.table.lookup(on_device.item_ids, on_device)
        scores: SequenceScores = self.engine(items, on_device, side)
        self.engine.train()
        return scores

    def catalogue(self) -> ShardedCatalogue | LiveCatalogue:
        """All items that are candidates, each rank holding its own shard."""
        rows = ShardedCatalogue(
            self.table.shards(),
            num_items=self.table.num_rows,
            dim=self.table.width,
            normalize=self.config.objective.retrieval.normalize,
        )
        return rows if self.table.live is None else LiveCatalogue(rows, self.table.live.row_of_item)

    def live_items(self) -> torch.Tensor | None:
        """``[num_items]`` bool on the host, which items have rows of their own; None if all have."""
        if self.table.live is None:
            return None
        return self.table.live.known(torch.arange(self.table.num_items, device=self.table.device)).cpu()

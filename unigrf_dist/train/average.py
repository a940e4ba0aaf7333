"""An exponential moving average of all weights: what evaluation, export and the best checkpoint are made of.

Averages of the path oscillate less than its last point (Polyak and Juditsky, 1992). Each rank averages what it
holds: its parts of the tables, and of the dense parameters what the optimizer updates in fp32, which under ZeRO is
its partition. So it costs their memory once more, and a pass over it per update, but no message between ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unigrf_dist.config.schema import AverageConfig
from unigrf_dist.model.tables import ItemTable
from unigrf_dist.train.dense_state import (
    forward_weights,
    read_weights,
    updated_tensors,
    write_forward_weights,
    write_updated_weights,
)


@dataclass(frozen=True)
class AveragedShard:
    """A part of a table on this rank: name of the table, where it begins, and the average of its values."""

    table: str
    first_row: int
    first_column: int
    values: Tensor


class AveragedWeights:
    """The average, beginning with the weights at the time of construction.

    The n-th update keeps ``min(decay, n / (n + 9))`` of it, so that the first weights are soon forgotten.

    Args:
        config: decay, and how often weights enter.
        engine: DeepSpeed engine.
        table: the tables.
    """

    def __init__(self, config: AverageConfig, engine: Any, table: ItemTable) -> None:
        self._config, self._engine = config, engine
        shards = [
            (name.removesuffix("/weight"), shard)
            for name, _, shard in table.state_shards()
            if name.endswith("/weight") and len(shard.values)
        ]
        self.shards = [AveragedShard(n, s.row_offset, s.column_offset, s.values.clone()) for n, s in shards]
        self._dense = [flat.detach().clone() for flat in updated_tensors(engine)]
        # Views of the live tensors, each with its average.
        self._tables = [(shard.values, mine.values) for (_, shard), mine in zip(shards, self.shards, strict=True)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` steps, where that is due."""
        if step % self._config.every_steps:
            return
        number = step // self._config.every_steps
        new = 1 - min(self._config.decay, number / (number + 9))
        for weights, average in self._pairs():
            average.lerp_(weights, new)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The model computes with the average; afterwards every weight has its bits again. Collective."""
        trained = forward_weights(self._engine)
        averaged = self.dense_weights()
        self._exchange(self._tables)
        write_forward_weights(self._engine, averaged)
        try:
            yield
        finally:
            self._exchange(self._tables)
            write_forward_weights(self._engine, trained)

    def dense_weights(self) -> dict[str, Tensor]:
        """Whole averages of the dense parameters, fp32; collective."""
        pairs = self._dense_pairs()
        self._exchange(pairs)
        weights = read_weights(self._engine)
        self._exchange(pairs)
        return weights

    def load_dense(self, weights: dict[str, Tensor]) -> None:
        """Lay out whole averages as a checkpoint holds them; tables are read into ``shards``. Collective."""
        pairs = self._dense_pairs()
        self._exchange(pairs)
        write_updated_weights(self._engine, weights)
        self._exchange(pairs)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin with the weights as they are now."""
        for weights, average in self._pairs():
            average.copy_(weights)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return self._tables + self._dense_pairs()

    def _dense_pairs(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(updated_tensors(self._engine), self._dense, strict=True))

    @staticmethod
    @torch.no_grad()
    def _exchange(pairs: list[tuple[Tensor, Tensor]]) -> None:
        for weights, average in pairs:
            kept = weights.clone()
            weights.copy_(average)
            average.copy_(kept)

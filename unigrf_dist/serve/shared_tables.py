"""The item table dealt to ranks: each holds a run of its rows, and asks the others for what its users need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.model.table_shard import TableShard
from unigrf_dist.ranks.collective import Collective
from unigrf_dist.serve.dense_tables import ITEM, DenseTables


def rows_of_rank(num_items: int, rank: int, world_size: int) -> range:
    """The items whose vectors lie on ``rank``."""
    return range(num_items * rank // world_size, num_items * (rank + 1) // world_size)


@dataclass(frozen=True, kw_only=True)
class SharedTables(DenseTables):
    """Tables whose item table has this rank's rows alone; those of side features are whole on every rank.

    Attributes:
        num_items: items of all ranks together.
        ranks: those that share the table.
    """

    num_items: int
    ranks: Collective

    @property
    def shard(self) -> TableShard:
        """The part of the catalogue that this rank searches."""
        return TableShard(
            rows_of_rank(self.num_items, self.ranks.rank, self.ranks.world_size).start, 0, self.items
        )

    def of(self, ids: Tensor) -> DenseTables:
        """Tables with the vectors of items ``ids`` int64, of any shape; all ranks call it, each with its own."""
        wanted = ids.unique()  # ascending
        ranks, first = self.ranks, self.shard.row_offset
        stops = [rows_of_rank(self.num_items, rank, ranks.world_size).stop for rank in range(ranks.world_size)]
        bounds = torch.searchsorted(wanted, torch.tensor([0, *stops]))
        asked = ranks.exchange_rows(wanted.split(bounds.diff().tolist()))
        vectors = ranks.exchange_rows([self.items[of_rank - first] for of_rank in asked])
        weights = {**self.weights, ITEM: torch.cat(vectors)}
        return DenseTables(weights, self.features, self.live, fetched=wanted)

    def _vectors(self, ids: Tensor) -> Tensor:
        raise RuntimeError("the table is dealt to ranks: ask `of` for the vectors first")

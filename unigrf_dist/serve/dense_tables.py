"""The item table and those of side features, whole and in memory, as training's sharded tables give them.

Shapes: ``E`` events of ``B`` users, ``C`` candidates per user, ``D`` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.side_features import FeatureLookup, SideFeatures

ITEM = "item"
"""Name of the item table; those of features are named by ``model.side_features.table_name``."""


@dataclass(frozen=True)
class DenseTables:
    """Tables by name.

    Attributes:
        weights: ``[rows, D]`` fp32 of each table.
        features: which features of items and users enter the tokens.
        live: ``[num_items]`` bool, the items with a row of their own, which alone may be listed; None if all have.
            The others have the vector that they share.
    """

    weights: Mapping[str, Tensor]
    features: SideFeatures
    live: Tensor | None = None

    @property
    def items(self) -> Tensor:
        """``[num_items, D]``."""
        return self.weights[ITEM]

    def events(self, batch: JaggedBatch) -> Tensor:
        """``[E, D]`` vectors of the events' items, with what side features add in their tokens."""
        vectors = self.items[batch.item_ids]
        return vectors + self._combined(self.features.lookup(batch)) if self.features else vectors

    def of_all_items(self) -> Tensor:
        """``[num_items, D]``: of each item its vector, with what its own features add in tokens."""
        added = self.features.of_items(torch.arange(len(self.items)), self.weights)
        return self.items if added is None else self.items + added

    def candidates(self, ids: Tensor, batch: JaggedBatch) -> Tensor:
        """``[B, C, D]`` likewise for further items ``[B, C]`` of the users of ``batch``."""
        vectors = self.items[ids]
        if not self.features:
            return vectors
        none = batch.item_ids[:0]
        users = replace(
            batch, item_ids=none, behaviours=none, timestamps=none, offsets=torch.zeros_like(batch.offsets)
        )
        return vectors + self._combined(self.features.lookup(users, ids)).view_as(vectors)

    def _combined(self, lookup: FeatureLookup) -> Tensor:
        return lookup.combine({name: self.weights[name][rows] for name, rows in lookup.ids.items()})


def empty_tables(features: SideFeatures, num_items: int, width: int) -> DenseTables:
    """Tables of zeros, to be filled.

    Args:
        features: side features of the model.
        num_items: rows of the item table.
        width: columns of every table.
    """
    rows = {ITEM: num_items, **features.cardinalities}
    return DenseTables({name: torch.zeros(number, width) for name, number in rows.items()}, features)

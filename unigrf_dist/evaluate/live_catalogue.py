"""The catalogue where ids are dynamic: candidates are the live items, found by their rows.

Legend: ``V`` items, ``R`` rows of the table, the last one shared by all unknown items; ``n`` queries of this rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unigrf_dist.evaluate.catalogue import Found, ShardedCatalogue
from unigrf_dist.evaluate.metrics import NOT_FOUND
from unigrf_dist.evaluate.top_k import NOTHING


class LiveCatalogue:
    """The live items as candidates; collective as ``ShardedCatalogue`` is, and in terms of item ids as it is.

    Items with equal scores are listed by lowest row, not by lowest id.

    Args:
        rows: the catalogue of all rows, those of no item included.
        row_of_item: ``[V]`` int64, row of each item; ``R - 1`` of unknown ones.
    """

    def __init__(self, rows: ShardedCatalogue, row_of_item: Tensor) -> None:
        self._catalogue, self._row_of_item, self._unknown = rows, row_of_item, rows.num_items - 1
        live = (row_of_item != self._unknown).nonzero()[:, 0]
        self._item_of_row = torch.full((rows.num_items,), NOTHING, device=row_of_item.device)
        self._item_of_row[row_of_item[live]] = live
        self._live_rows = self._item_of_row != NOTHING

    def target_ranks(
        self, queries: Tensor, target_ids: Tensor, seen_item_ids: Tensor, seen_offsets: Tensor
    ) -> Tensor:
        """As ``ShardedCatalogue.target_ranks``; ``NOT_FOUND`` where the target is unknown."""
        targets = self._rows_of(target_ids)
        ranks = self._catalogue.target_ranks(
            queries, targets, self._rows_of(seen_item_ids), seen_offsets, allowed=self._live_rows
        )
        return ranks.masked_fill(targets.to(ranks.device) == self._unknown, NOT_FOUND)

    def top_k(
        self, queries: Tensor, k: int, exclude_item_ids: Tensor, exclude_offsets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As ``ShardedCatalogue.top_k``."""
        found = self.search(queries, k, exclude_item_ids, exclude_offsets, temperature=1.0)
        return found.ids, found.scores

    def search(
        self, queries: Tensor, k: int, exclude_item_ids: Tensor, exclude_offsets: Tensor, *, temperature: float
    ) -> Found:
        """As ``ShardedCatalogue.search``."""
        found = self._catalogue.search(
            queries,
            k,
            self._rows_of(exclude_item_ids),
            exclude_offsets,
            temperature=temperature,
            allowed=self._live_rows,
        )
        ids = torch.where(found.ids == NOTHING, NOTHING, self._item_of_row[found.ids])
        return Found(ids, found.scores, found.log_probabilities)

    def _rows_of(self, item_ids: Tensor) -> Tensor:
        return self._row_of_item[item_ids.to(self._row_of_item.device)]

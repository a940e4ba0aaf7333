"""Retrieval from what a user did last: a matrix from items to items, asked with weights that fade with age.

Legend: ``B`` users, ``V`` items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from unigrf_dist.data import EvaluationBatch, JaggedBatch
from unigrf_dist.evaluate.metrics import rank_from_counts
from unigrf_dist.evaluate.scorer import UserScores, target_items

# Scores that are held at a time, 8 bytes each.
_MOST_SCORES = 1 << 23


@dataclass(frozen=True)
class ItemToItem:
    """Score of item ``j`` = ``sum over events e of 0.5 ** (age(e) / half_life) * matrix[item(e), j]``.

    Attributes:
        matrix: ``[V, V]`` float64, sparse or dense.
        half_life: events after which an event counts half; age 0 is the latest one.
        longest: events that are asked with, the most recent ones.
        item_weight: ``[V]`` float64, factor of the events of each item; None for 1.
        score_weight: ``[V]`` float64, factor of each item's score; None for 1.
    """

    matrix: csr_array | NDArray[np.float64]
    half_life: float
    longest: int
    item_weight: NDArray[np.float64] | None = None
    score_weight: NDArray[np.float64] | None = None

    def score_users(self, batch: EvaluationBatch) -> UserScores:
        """Ranks as ``ShardedCatalogue.target_ranks`` would give for these scores; no logits."""
        num_items = self.matrix.shape[0]
        queries = _recency_queries(batch.batch, num_items, self.half_life, self.longest)
        if self.item_weight is not None:
            queries = queries.multiply(self.item_weight[None, :]).tocsr()
        targets, ranks = target_items(batch.batch), []
        size = max(1, _MOST_SCORES // num_items)
        for first in range(0, batch.batch.num_users, size):
            rows = slice(first, min(first + size, batch.batch.num_users))
            product = queries[rows] @ self.matrix
            scores = np.asarray(product.toarray() if hasattr(product, "toarray") else product)
            if self.score_weight is not None:
                scores *= self.score_weight
            ranks.append(_ranks(torch.from_numpy(scores), targets[rows], batch, rows))
        return UserScores(torch.cat(ranks) if ranks else targets, None)


def _recency_queries(batch: JaggedBatch, num_items: int, half_life: float, longest: int) -> csr_array:
    """``[B, V]`` weights of the events before the last one of each user; weights of a repeated item add up."""
    users = batch.user_indices.numpy()
    # The last event is the one to find, so that the one before it has age 0.
    age = batch.offsets.numpy()[1:][users] - 2 - np.arange(batch.num_events)
    asked = (age >= 0) & (age < longest)
    weights = 0.5 ** (age[asked] / half_life)
    shape = (batch.num_users, num_items)
    return csr_array((weights, (users[asked], batch.item_ids.numpy()[asked])), shape=shape)


def _ranks(scores: Tensor, targets: Tensor, batch: EvaluationBatch, rows: slice) -> Tensor:
    """``[n]`` rank of each target for ``scores [n, V]``, which are changed."""
    each = torch.arange(targets.numel())
    goal = scores[each, targets][:, None]
    bounds = batch.seen_offsets[rows.start : rows.stop + 1]
    seen = batch.seen_item_ids[bounds[0] : bounds[-1]]
    scores[each.repeat_interleave(bounds.diff()), seen] = -torch.inf
    scores[each, targets] = -torch.inf
    return rank_from_counts((scores > goal).sum(1), (scores == goal).sum(1))

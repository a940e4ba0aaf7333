"""The best k of many, by score and then by lowest id, as chunks come in."""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = -1
"""Id that fills up a list when fewer than k items are left to choose from."""


class RunningTopK:
    """The best ``k`` of all chunks seen so far; always ``k`` wide, however narrow a chunk is.

    Args:
        num_queries: rows.
        k: columns kept.
        device: device of the scores.
    """

    def __init__(self, num_queries: int, k: int, device: torch.device) -> None:
        self.scores = torch.full((num_queries, k), -torch.inf, dtype=torch.float64, device=device)
        self.ids = torch.full((num_queries, k), NOTHING, dtype=torch.int64, device=device)

    def add(self, first_id: int, scores: Tensor) -> None:
        """Take in ``scores [Q, C]`` float64 of the items from ``first_id`` on; chunks come in ascending order."""
        ids = torch.arange(first_id, first_id + scores.shape[1], device=scores.device)
        self.scores, self.ids = _best(
            torch.cat([self.scores, scores], dim=1),
            torch.cat([self.ids, ids.expand(scores.shape[0], -1)], dim=1),
            self.scores.shape[1],
        )


def merge_top_k(scores: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The best ``k`` of ``[lists, Q, k]``, the same whatever the order of the lists."""
    lists, num_queries, k = scores.shape
    flat_scores, flat_ids = (x.transpose(0, 1).reshape(num_queries, lists * k) for x in (scores, ids))
    sorted_ids, order = flat_ids.sort(dim=1, stable=True)
    return _best(flat_scores.gather(1, order), sorted_ids, k)


def _best(scores: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Best ``k`` of ``[Q, N]`` (``N >= k``); equal scores must already be in order of preference."""
    if scores.shape[0] == 0 or k == 0:
        return scores[:, :k], ids[:, :k]
    # topk alone may choose any of the items that share the last score; these are taken from the left.
    last = scores.topk(k, dim=1).values[:, -1:]
    better, tied = scores > last, scores == last
    remaining = k - better.sum(1, keepdim=True)
    chosen = better | (tied & (tied.cumsum(1) <= remaining))
    columns = chosen.nonzero()[:, 1].view(-1, k)
    scores, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return scores, ids.gather(1, columns.gather(1, order))

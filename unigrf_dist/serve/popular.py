"""What a user without any history gets: the most popular items."""

from __future__ import annotations

import torch
from torch import Tensor

from unigrf_dist.evaluate.top_k import NOTHING
from unigrf_dist.serve.lists import Lists


def popular_lists(counts: Tensor, num_users: int, k: int, num_tasks: int, allowed: Tensor | None) -> Lists:
    """The same list for ``num_users`` users: items by training events, equal ones by lowest id.

    The retrieval probability is an item's share of the training events of all items that may appear, one event
    added to each; ranking tasks have none.

    Args:
        counts: ``[V]`` int64, training events of each item.
        num_users: users.
        k: entries of a list.
        num_tasks: ranking tasks.
        allowed: ``[V]`` bool, items that may appear; None for all.
    """
    smoothed = (counts + 1).double()
    if allowed is not None:
        smoothed = smoothed.masked_fill(~allowed, 0.0)
    total = smoothed.sum().clamp_min(1.0)  # at least an event of each item that may appear, if any may
    shares, items = (smoothed / total).sort(descending=True, stable=True)
    missing = max(0, k - len(items))
    shares = torch.nn.functional.pad(shares[:k], (0, missing))
    items = torch.nn.functional.pad(items[:k], (0, missing), value=NOTHING).masked_fill(shares == 0, NOTHING)
    scores = shares.log().float().expand(num_users, -1)
    return Lists(
        items.expand(num_users, -1),
        scores,
        scores,
        torch.full((num_users, k, num_tasks), torch.nan),
        torch.zeros(num_users, dtype=torch.bool),
    )

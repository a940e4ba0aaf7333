"""What the users of a batch have seen."""

from __future__ import annotations

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch


def seen_items(batch: JaggedBatch) -> list[tuple[Tensor, Tensor]]:
    """Pairs ``([N] users, [N] item ids)``: first the prior history, where the batch holds it, then the events."""
    pairs = [(batch.user_indices, batch.item_ids)]
    if batch.prior_item_ids is not None and batch.prior_offsets is not None:
        users = torch.arange(batch.num_users, device=batch.device)
        prior = users.repeat_interleave(batch.prior_offsets.diff(), output_size=batch.prior_item_ids.numel())
        pairs.insert(0, (prior, batch.prior_item_ids))
    return pairs

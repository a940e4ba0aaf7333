"""The retrieval entries of a batch: which hidden state is to find which item, and how much it counts.

Shapes: ``E`` events, ``B`` users, ``f`` favourites of each, ``P`` entries, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.tokens import TokenLayout, has_next_event
from unigrf_dist.objective.enhancer.candidates import NO_ITEM
from unigrf_dist.objective.enhancer.targets import EnhancerTargets


@dataclass(frozen=True)
class QueryPositivePairs:
    """Positions of the retrieval loss.

    Attributes:
        rows: ``[P]`` int64, hidden state that asks.
        positives: ``[P, D]`` vectors to be found.
        ids: ``[P]`` int64, their items.
        weights: ``[P]`` fp32, 0 for entries that are none.
        users: ``[P]`` int64, whose they are.
        events: ``[P]`` int64, the event behind which they ask; an arbitrary one where there is none.
    """

    rows: Tensor
    positives: Tensor
    ids: Tensor
    weights: Tensor
    users: Tensor
    events: Tensor

    def with_soft_positives(self, targets: EnhancerTargets, weight: float) -> QueryPositivePairs:
        """These and, behind them, the soft positives of every user's last state."""
        ids = targets.soft_positive_ids
        users = torch.arange(ids.shape[0], device=ids.device).repeat_interleave(ids.shape[1])
        return QueryPositivePairs(
            torch.cat([self.rows, targets.rows[users]]),
            torch.cat([self.positives, targets.soft_positive_vectors.flatten(0, 1)]),
            torch.cat([self.ids, ids.flatten()]),
            torch.cat([self.weights, weight * (ids.flatten() != NO_ITEM)]),
            torch.cat([self.users, users]),
            torch.cat([self.events, targets.events[users]]),
        )


def next_item_pairs(hidden: Tensor, layout: TokenLayout, items: Tensor, batch: JaggedBatch) -> QueryPositivePairs:
    """Every event finds the next one of its user.

    The last event of a user, which none follows, weighs nothing: a selection of rows would cost a host
    synchronisation per step.
    """
    events = torch.arange(batch.num_events, device=batch.device)
    follower = (events + 1).clamp(max=max(batch.num_events - 1, 0))
    users = torch.arange(batch.num_users, device=batch.device)
    return QueryPositivePairs(
        rows=layout.item_rows + 1,
        positives=items[follower].to(hidden.dtype),
        ids=batch.item_ids[follower],
        weights=has_next_event(batch).float(),
        users=users.repeat_interleave(batch.lengths, output_size=batch.num_events),
        events=events,
    )

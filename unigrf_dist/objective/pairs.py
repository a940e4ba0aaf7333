"""Query–positive pairs: which hidden state must retrieve which item, and how much the pair weighs.

Shapes: ``T`` tokens, ``E`` events, ``B`` users, ``f`` soft positives per user, ``P`` pairs, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.enhancer.candidates import NO_ITEM
from unigrf_dist.objective.enhancer.targets import EnhancerTargets


@dataclass(frozen=True)
class QueryPositivePairs:
    """The terms of the retrieval loss.

    Attributes:
        query_rows: ``[P]`` int64, row of the hidden matrix that is the query.
        positive_vectors: ``[P, D]`` item vectors of the positives.
        positive_ids: ``[P]`` int64, their item ids.
        weights: ``[P]`` fp32; a pair of weight 0 is none.
        users: ``[P]`` int64, index in the batch of the query's user.
        events: ``[P]`` int64, the event after which the query stands: what its user has seen by then is masked.
            An arbitrary one for users without events.
    """

    query_rows: Tensor
    positive_vectors: Tensor
    positive_ids: Tensor
    weights: Tensor
    users: Tensor
    events: Tensor

    def with_soft_positives(
        self, targets: EnhancerTargets, *, query_rows: Tensor, events: Tensor, weight: float
    ) -> QueryPositivePairs:
        """These pairs and, after them, the soft positives of every user's last query.

        Args:
            targets: what the enhancer selected.
            query_rows: ``[B]`` int64, row of the hidden state after each user's last event.
            events: ``[B]`` int64, that event.
            weight: weight of a soft positive; a next-item pair weighs 1.
        """
        ids = targets.soft_positive_ids  # [B, f]
        users = torch.arange(ids.shape[0], device=ids.device).repeat_interleave(ids.shape[1])
        return QueryPositivePairs(
            torch.cat([self.query_rows, query_rows[users]]),
            torch.cat([self.positive_vectors, targets.soft_positive_vectors.flatten(0, 1)]),
            torch.cat([self.positive_ids, ids.flatten()]),
            torch.cat([self.weights, weight * (ids.flatten() != NO_ITEM)]),
            torch.cat([self.users, users]),
            torch.cat([self.events, events[users]]),
        )


def next_item_weights(batch: JaggedBatch, targets: Tensor) -> Tensor:
    """``[E]`` fp32, 1 for each event whose user has a next event that is a target and no mere context, else 0.

    An item without a row of its own is no target: no vector would stand for it and it alone.

    Args:
        batch: the events.
        targets: ``[num_behaviours]`` fp32, 1 for the behaviours of events that retrieval is to find, else 0.
    """
    next_events = _next_events(batch)
    weights = batch.has_next_event * targets[batch.behaviours[next_events]]
    if batch.known is not None:
        weights = weights * batch.known[next_events]
    return weights if (trained := batch.is_trained) is None else weights * trained[next_events]


def event_labels(batch: JaggedBatch, labels: Tensor) -> Tensor:
    """``[E, A]`` fp32, each event's label under each ranking task; NaN where it has none or is mere context.

    Args:
        batch: the events.
        labels: ``[num_behaviours, A]`` label of each behaviour code, NaN if none.
    """
    found = labels[batch.behaviours].float()
    return found if (trained := batch.is_trained) is None else found.where(trained[:, None], torch.nan)


def next_item_pairs(
    behaviour_rows: Tensor, items: Tensor, batch: JaggedBatch, targets: Tensor
) -> QueryPositivePairs:
    """One pair per event: the state at its behaviour token retrieves the user's next item.

    The last event of a user, which has no next one, and one before an event that is no target or mere context
    weigh 0: selecting the others would cost a host synchronisation per step.

    Args:
        behaviour_rows: ``[E]`` int64, row of each event's behaviour token.
        items: ``[E, D]`` vectors of the events' items.
        batch: the events.
        targets: see ``next_item_weights``.
    """
    events = torch.arange(batch.num_events, device=batch.device)
    next_events = _next_events(batch)
    return QueryPositivePairs(
        query_rows=behaviour_rows,
        positive_vectors=items[next_events],
        positive_ids=batch.item_ids[next_events],
        weights=next_item_weights(batch, targets),
        users=batch.user_indices,
        events=events,
    )


def _next_events(batch: JaggedBatch) -> Tensor:
    """``[E]`` int64, the event after each one; the last event of the batch stands for itself."""
    events = torch.arange(batch.num_events, device=batch.device)
    return (events + 1).clamp(max=max(batch.num_events - 1, 0))

"""Lists of recommendations as tensors, and the order that joins both stages.

Shapes: ``B`` users, ``C`` candidates, ``k`` entries of a list, ``A`` ranking tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unigrf_dist.evaluate.catalogue import Found
from unigrf_dist.evaluate.top_k import NOTHING
from unigrf_dist.ranks.collective import Collective


@dataclass(frozen=True)
class Lists:
    """A list of each user, best first.

    Attributes:
        items: ``[B, k]`` int64 dense item ids; -1 where fewer than ``k`` items are left.
        scores: ``[B, k]`` fp32, what the list is ordered by.
        log_retrieval: ``[B, k]`` fp32, natural logarithm of the retrieval probability of the item among all items
            that could be recommended to the user.
        probabilities: ``[B, k, A]`` fp32, probability of each ranking task; NaN where the model was not asked.
        from_model: ``[B]`` bool; the others have no history and get the most popular items.
    """

    items: Tensor
    scores: Tensor
    log_retrieval: Tensor
    probabilities: Tensor
    from_model: Tensor

    @staticmethod
    def joined(parts: list[Lists]) -> Lists:
        """All users of ``parts``, in order."""
        return Lists(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Lists)))

    def of_all(self, ranks: Collective) -> Lists:
        """The lists of all ranks' users, rank by rank; every rank calls it."""
        return Lists(*(torch.cat(ranks.gather_rows(getattr(self, field.name))) for field in fields(Lists)))

    def take(self, rows: Tensor) -> Lists:
        """The lists of users ``rows``, ``[n]`` int64, in that order."""
        return Lists(*(getattr(self, field.name)[rows] for field in fields(Lists)))


def blended(found: Found, logits: Tensor, blend: Tensor, k: int) -> Lists:
    """The best ``k`` candidates by ``log p_retrieval + sum of lambda_t log p_t``; equal ones in retrieval's order.

    Sorting by the ranking stage alone would ruin the list: its probabilities hold for items that a user comes to
    consume, which most of the catalogue is not.

    Args:
        found: ``C`` candidates of each user, best first.
        logits: ``[B, C, A]`` of the ranking tasks.
        blend: ``[A]`` float64, lambda of each task; zeros leave the retrieval order as it is.
        k: entries of a list, at most ``C``.
    """
    scores = found.log_probabilities + logsigmoid(logits.double()) @ blend
    scores = scores.masked_fill(found.ids == NOTHING, -torch.inf)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    scores, order = scores[:, :k], order[:, :k]
    # User by user: a vectorised function may differ in its last bit with the place of a value in the tensor.
    probabilities = torch.stack([each.sigmoid() for each in logits]) if len(logits) else logits
    probabilities = probabilities.gather(1, order[:, :, None].expand(-1, -1, logits.shape[2]))
    return Lists(
        found.ids.gather(1, order),
        scores.float(),
        found.log_probabilities.gather(1, order).float(),
        probabilities,
        torch.ones(len(order), dtype=torch.bool),
    )

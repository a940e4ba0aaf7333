"""The enhancer inside a forward: candidates' hidden states in, what retrieval is to learn from them out.

Shapes: ``B`` users, ``C`` candidates, ``m`` own negatives, ``f`` favourites, ``K`` negatives, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.config.schema import EnhancerConfig, RetrievalConfig
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.tokens import TokenLayout
from unigrf_dist.objective.enhancer.candidates import NO_ITEM, Candidates, select_candidates, select_targets
from unigrf_dist.objective.negatives import Negatives


@dataclass(frozen=True)
class EnhancerTargets:
    """What ranking teaches retrieval in a step.

    Attributes:
        rows: ``[B]`` int64, token behind each user's last event.
        events: ``[B]`` int64, that event; an arbitrary one for users without events.
        hard_ids, hard_vectors: ``[B, m]`` and ``[B, m, D]``, the users' own negatives.
        soft_positive_ids, soft_positive_vectors: ``[B, f]`` and ``[B, f, D]``, soft positives of ``rows``.
        above_threshold_ids: ``[B, C]``, no negatives of the user.
    """

    rows: Tensor
    events: Tensor
    hard_ids: Tensor
    hard_vectors: Tensor
    soft_positive_ids: Tensor
    soft_positive_vectors: Tensor
    above_threshold_ids: Tensor

    def counts(self) -> Tensor:
        """``[2]`` fp32, hard negatives and favourites of all users."""
        return torch.stack([(ids != NO_ITEM).sum() for ids in (self.hard_ids, self.soft_positive_ids)]).float()


def enhancer_targets(
    hidden: Tensor,
    layout: TokenLayout,
    batch: JaggedBatch,
    candidates: Candidates,
    *,
    head_weight: Tensor,
    head_bias: Tensor,
    config: EnhancerConfig,
    retrieval: RetrievalConfig,
) -> EnhancerTargets:
    """Judge the candidates by both tasks.

    Args:
        hidden: ``[T, D]`` hidden states.
        layout: places of the candidates.
        batch: the events.
        proposals: what the candidates are.
        head_weight, head_bias: ``[D]`` and ``[]``, ranking head of the task that teaches.
        config: of the enhancer.
        retrieval: says how vectors are compared.
    """
    rows = last_rows(layout)
    vectors = candidates.vectors.to(hidden.dtype)
    with torch.no_grad():
        # Who has no history has no opinion either.
        ids = torch.where(batch.lengths[:, None] > 0, candidates.ids, NO_ITEM)
        query = _direction(hidden[rows], retrieval)
        scores = torch.einsum("bd,bcd->bc", query, _direction(vectors, retrieval)).float()
        probabilities = (hidden[layout.candidate_rows] @ head_weight + head_bias).float().sigmoid()
        selected = select_targets(ids, scores, probabilities, config)
    return EnhancerTargets(
        rows,
        (batch.offsets[1:] - 1).clamp_min(0),
        selected.hard_ids,
        _gather(vectors, selected.hard),
        selected.soft_positive_ids,
        _gather(vectors, selected.soft_positives),
        selected.above_threshold_ids,
    )


@torch.no_grad()
def next_candidates(
    hidden: Tensor,
    layout: TokenLayout,
    batch: JaggedBatch,
    negatives: Negatives,
    negative_vectors: Tensor,
    candidates: Candidates | None,
    *,
    config: EnhancerConfig,
    retrieval: RetrievalConfig,
    num_items: int,
) -> Tensor:
    """``[B, C]`` int64, what retrieval proposes for the next round."""
    if not batch.num_events:
        return batch.user_ids.new_full((batch.num_users, config.candidates), NO_ITEM)
    old = candidates and Candidates(candidates.ids, _direction(candidates.vectors.to(hidden.dtype), retrieval))
    found = select_candidates(
        hidden[last_rows(layout)],
        _direction(negative_vectors.to(hidden.dtype), retrieval),
        negatives,
        batch,
        old,
        num_candidates=config.candidates,
        num_items=num_items,
    )
    return torch.where(batch.lengths[:, None] > 0, found, NO_ITEM)


def last_rows(layout: TokenLayout) -> Tensor:
    """``[B]`` int64, token of each user's last behaviour; an arbitrary one for users without events."""
    return (layout.attention.offsets[1:] - layout.candidate_rows.shape[1] - 1).clamp_min(0)


def _direction(vectors: Tensor, retrieval: RetrievalConfig) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-6) if retrieval.normalize else vectors


def _gather(vectors: Tensor, places: Tensor) -> Tensor:
    """``[B, C, D]`` and ``[B, n]`` places → ``[B, n, D]``."""
    rows = places + vectors.shape[1] * torch.arange(len(places), device=places.device)[:, None]
    # Its backward adds whole rows; that of gather adds number by number.
    return vectors.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, places.shape)

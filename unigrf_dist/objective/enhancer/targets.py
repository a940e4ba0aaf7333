"""Which candidates become hard negatives, and which soft positives.

Shapes: ``B`` users, ``C`` candidates, ``m`` hard negatives and ``f`` soft positives per user, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.config.schema import EnhancerConfig
from unigrf_dist.objective.enhancer.candidates import NO_ITEM


@dataclass(frozen=True)
class SelectedCandidates:
    """Indices into the candidates, and the item ids there; ``NO_ITEM`` where fewer were selected.

    Attributes:
        hard_negative_indices, hard_negative_ids: ``[B, m]`` int64.
        soft_positive_indices, soft_positive_ids: ``[B, f]`` int64.
        above_threshold_ids: ``[B, C]`` int64, candidates that must not be negatives of their user.
    """

    hard_negative_indices: Tensor
    hard_negative_ids: Tensor
    soft_positive_indices: Tensor
    soft_positive_ids: Tensor
    above_threshold_ids: Tensor


@dataclass(frozen=True)
class EnhancerTargets:
    """What retrieval learns from ranking in a step.

    Attributes:
        hard_negative_ids, hard_negative_vectors: ``[B, m]`` and ``[B, m, D]``, negatives of that user alone.
        soft_positive_ids, soft_positive_vectors: ``[B, f]`` and ``[B, f, D]``, positives of the user's last query.
        above_threshold_ids: ``[B, C]``, items that must not be negatives of their user.
    """

    hard_negative_ids: Tensor
    hard_negative_vectors: Tensor
    soft_positive_ids: Tensor
    soft_positive_vectors: Tensor
    above_threshold_ids: Tensor

    def counts(self) -> Tensor:
        """``[2]`` fp32, hard negatives and soft positives of all users."""
        return torch.stack(
            [(ids != NO_ITEM).sum() for ids in (self.hard_negative_ids, self.soft_positive_ids)]
        ).float()


def select_targets(
    ids: Tensor, scores: Tensor, probabilities: Tensor, config: EnhancerConfig
) -> SelectedCandidates:
    """Sort candidates into hard negatives, soft positives and the rest.

    A candidate above the threshold is never a negative; the most probable ones are soft positives. Of the others,
    those that retrieval scores highest relative to ranking are the hard negatives: the largest differences between
    both, each standardised over the user's candidates, because a cosine and a probability have no common scale.

    Args:
        ids: ``[B, C]`` candidates; ``NO_ITEM`` is never selected.
        scores: ``[B, C]`` retrieval scores.
        probabilities: ``[B, C]`` probabilities of a positive label, from the ranking head.
        config: how many of each, and the threshold.
    """
    valid = ids != NO_ITEM
    above = valid & (probabilities > config.threshold)
    difference = _standardised(scores, valid) - _standardised(probabilities, valid)
    hard_indices, hard_ids = _largest(difference, valid & ~above, ids, config.hard_negatives)
    soft_indices, soft_ids = _largest(probabilities, above, ids, config.soft_positives)
    return SelectedCandidates(hard_indices, hard_ids, soft_indices, soft_ids, torch.where(above, ids, NO_ITEM))


def gather_vectors(vectors: Tensor, indices: Tensor) -> Tensor:
    """``[B, C, D]`` vectors and ``[B, n]`` indices into ``C`` → ``[B, n, D]``."""
    rows = indices + vectors.shape[1] * torch.arange(len(indices), device=indices.device)[:, None]
    # index_select's backward adds whole rows; that of gather adds number by number.
    return vectors.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, indices.shape)


def _standardised(values: Tensor, valid: Tensor) -> Tensor:
    """``[B, C]`` values with mean 0 and deviation 1 over each row's valid ones; 0 elsewhere."""
    count = valid.sum(1, keepdim=True).clamp_min(1)
    mean = torch.where(valid, values, 0.0).sum(1, keepdim=True) / count
    centred = torch.where(valid, values - mean, 0.0)
    return centred / (centred.square().sum(1, keepdim=True) / count).sqrt().clamp_min(1e-6)


def _largest(values: Tensor, allowed: Tensor, ids: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Indices and ids of each row's ``number`` largest allowed values, or as many as there are columns."""
    number = min(number, values.shape[1])
    largest, indices = values.masked_fill(~allowed, -torch.inf).topk(number, dim=1)
    return indices, torch.where(largest > -torch.inf, ids.gather(1, indices), NO_ITEM)

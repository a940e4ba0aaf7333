"""The ranking-driven enhancer (UniGRF, arXiv 2504.16454, section 3.3): the more precise task teaches the other.

A user's *proposals* are items that retrieval scored high in the last round and that the user has not met. They
ride along as candidate tokens, which see the history and themselves; what ranking and retrieval say of them
gives retrieval its *hard negatives* and *favourites*. The same forward finds the proposals of the next round.

Shapes: ``B`` users, ``C`` proposals per user, ``K`` negatives, ``D`` width. An id of -1 is no item.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.config.schema import EnhancerConfig
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.negative_mask import seen_items
from unigrf_dist.objective.negatives import Negatives

NO_ITEM = -1


@dataclass(frozen=True)
class Candidates:
    """What retrieval proposed to the users of a batch.

    Attributes:
        ids: ``[B, C]`` int64.
        vectors: ``[B, C, D]``; arbitrary where there is no item.
        side: ``[B, C, D]``, what side features add to them in the tokens; None without features.
    """

    ids: Tensor
    vectors: Tensor
    side: Tensor | None = None


@dataclass(frozen=True)
class SelectedCandidates:
    """What the two tasks' views of the proposals teach retrieval.

    Attributes:
        hard: ``[B, m]`` int64, places among the proposals of the user's own negatives.
        hard_ids: ``[B, m]`` their ids.
        favourites: ``[B, f]`` int64, places of the soft positives.
        soft_positive_ids: ``[B, f]`` their ids.
        above_threshold_ids: ``[B, C]``, all proposals that are no negatives of the user.
    """

    hard: Tensor
    hard_ids: Tensor
    soft_positives: Tensor
    soft_positive_ids: Tensor
    above_threshold_ids: Tensor


def select_targets(
    ids: Tensor, scores: Tensor, probabilities: Tensor, config: EnhancerConfig
) -> SelectedCandidates:
    """Sort proposals into disliked ones that are hard to detect, favourites, and the rest.

    Hard to detect is what retrieval scores high relative to ranking: the largest differences of both,
    standardised over the user's proposals. Proposals with a probability above the threshold are liked: never
    negatives, and the most probable of them are favourites.

    Args:
        ids: ``[B, C]`` proposals.
        scores: ``[B, C]`` retrieval scores.
        probabilities: ``[B, C]`` of a positive label, from the ranking head.
        config: how many, and the threshold.
    """
    there = ids != NO_ITEM
    liked = there & (probabilities > config.threshold)
    relative = _standardised(scores, there) - _standardised(probabilities, there)
    hard, hard_ids = _best(relative, there & ~liked, ids, config.hard_negatives)
    soft_positives, soft_positive_ids = _best(probabilities, liked, ids, config.soft_positives)
    return SelectedCandidates(hard, hard_ids, soft_positives, soft_positive_ids, torch.where(liked, ids, NO_ITEM))


def select_candidates(
    queries: Tensor,
    vectors: Tensor,
    negatives: Negatives,
    batch: JaggedBatch,
    old: Candidates | None,
    *,
    num_candidates: int,
    num_items: int,
) -> Tensor:
    """The proposals of the next round: the best of the step's negatives and of the old proposals.

    A batch holds training events alone, so nothing of the held-out ones can be told from the result.

    Args:
        queries: ``[B, D]`` hidden state behind each user's last event.
        vectors: ``[K, D]`` vectors of the negatives, scaled as retrieval scores them.
        negatives: the step's.
        batch: whose items, older ones included, the users have met.
        old: proposals of the last round, their vectors scaled likewise.
        num_proposals: ``C``.
        num_items: size of the catalogue.

    Returns:
        ``[B, C]`` int64, best first.
    """
    ids = negatives.ids
    if not negatives.distinct:
        ids, where = ids.unique(return_inverse=True)
        vectors = vectors.new_empty(ids.numel(), vectors.shape[1]).index_copy_(0, where, vectors)
    num_users, spare = queries.shape[0], ids.numel()
    column = torch.full((num_items,), spare, device=ids.device)
    column[ids] = torch.arange(spare, device=ids.device)
    num_old = 0 if old is None else old.ids.shape[1]
    # Columns: the negatives, a spare one for what is none of them, the old proposals.
    scores = queries.new_empty(num_users, spare + 1 + num_old)
    torch.mm(queries, vectors.T, out=scores[:, :spare])
    scores[:, spare] = -torch.inf
    for users, items in seen_items(batch):
        scores[users, column[items]] = -torch.inf
    if old is not None:
        # An old proposal that is a column too must not come twice.
        again = (old.ids == NO_ITEM) | (column[old.ids.clamp_min(0)] < spare)
        old_scores = torch.einsum("bd,bcd->bc", queries, old.vectors)
        scores[:, spare + 1 :] = old_scores.masked_fill_(again, -torch.inf)
    best, places = scores.topk(min(num_candidates, scores.shape[1]), dim=1)
    candidate_ids = torch.nn.functional.pad(ids, (0, 1), value=NO_ITEM)[places.clamp_max(spare)]
    if old is not None:
        of_old = old.ids.gather(1, (places - spare - 1).clamp_min(0))
        candidate_ids = torch.where(places > spare, of_old, candidate_ids)
    candidate_ids.masked_fill_(best == -torch.inf, NO_ITEM)
    return torch.nn.functional.pad(candidate_ids, (0, num_candidates - candidate_ids.shape[1]), value=NO_ITEM)


def _standardised(values: Tensor, there: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over each row's entries that are there."""
    count = there.sum(1, keepdim=True).clamp_min(1)
    centred = torch.where(there, values - torch.where(there, values, 0.0).sum(1, keepdim=True) / count, 0.0)
    return centred / (centred.square().sum(1, keepdim=True) / count).sqrt().clamp_min(1e-6)


def _best(values: Tensor, allowed: Tensor, ids: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Places and ids of each row's ``number`` largest allowed values, or as many as there are columns."""
    number = min(number, values.shape[1])
    best, places = values.masked_fill(~allowed, -torch.inf).topk(number, dim=1)
    return places, torch.where(best > -torch.inf, ids.gather(1, places), NO_ITEM)

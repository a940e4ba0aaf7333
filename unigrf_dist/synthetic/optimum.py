"""Metrics of the best observer on held-out events, under the protocol of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.synthetic.observer import Prediction, have_seen, taste_utilities
from unigrf_dist.synthetic.world import FloatArray, IntArray, World

RANKING_TASK = "rating >= 4"
_POSITIVE_CODE = 3
_CUTOFFS = {"hr": (1, 10, 50, 200), "ndcg": (10, 50, 200)}
# The same chance computed in two ways differs by rounding; an item must not outrank itself.
_ROUNDING = 1 + 1e-12
_TIE_DECIMALS = 9


@dataclass
class OptimumTally:
    """Accumulates the held-out events of one split, in chunks of users.

    Attributes:
        ranks: ``[n]`` ranks of the held-out items, from 1.
        positive_chances: ``[n]`` predicted chances of a rating of 4 or more.
        positive: ``[n]`` whether the rating was 4 or more.
    """

    ranks: list[IntArray] = field(default_factory=list)
    positive_chances: list[FloatArray] = field(default_factory=list)
    positive: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(
        self, world: World, prediction: Prediction, history: IntArray, items: IntArray, ratings: NDArray[np.int16]
    ) -> None:
        """Add one held-out event of each of ``n`` users.

        Args:
            world: world of the users.
            prediction: the observer's prediction of the event.
            history: ``[n, t]`` items the users have seen before.
            items: ``[n]`` held-out items.
            ratings: ``[n]`` int16 behaviour codes of the held-out events.
        """
        self.ranks.append(item_ranks(world, prediction, history, items))
        self.positive_chances.append(positive_chances(world, prediction, items))
        self.positive.append(ratings >= _POSITIVE_CODE)

    def metrics(self) -> dict[str, Any]:
        """The metrics by name, as ``planted.json`` holds them."""
        ranks = np.concatenate(self.ranks)
        retrieval = {f"hr@{k}": float((ranks <= k).mean()) for k in _CUTOFFS["hr"]}
        gains = 1 / np.log2(ranks + 1)
        retrieval |= {f"ndcg@{k}": float((gains * (ranks <= k)).mean()) for k in _CUTOFFS["ndcg"]}
        retrieval["mrr"] = float((1 / ranks).mean())
        chances, positive = np.concatenate(self.positive_chances), np.concatenate(self.positive)
        log_loss = -np.log(np.where(positive, chances, 1 - chances)).mean()
        return {
            "retrieval": retrieval,
            "ranking": {RANKING_TASK: {"auc": _auc(chances, positive), "log_loss": float(log_loss)}},
        }


def item_ranks(world: World, prediction: Prediction, history: IntArray, items: IntArray) -> IntArray:
    """``[n]`` rank, from 1, of each user's item among the items the user has not seen, by the observer's chances.

    Popularity inside a group falls with the item's number, so that the items above a chance are counted by one
    binary search per group instead of a pass over all items; seen items and successors are corrected for
    afterwards.
    """
    mixture = prediction.posterior / prediction.unseen
    by_group = (mixture[:, None, :] @ prediction.group_chances)[:, 0]
    by_succession = mixture.sum(axis=1)[:, None] * prediction.successor_chances

    def base(some_items: IntArray) -> FloatArray:
        return np.take_along_axis(by_group, world.group_of[some_items], axis=1) * world.popularity[some_items]

    same = prediction.successors[:, :, None] == prediction.successors[:, None, :]
    extra = np.einsum("ns,nst->nt", by_succession, same)
    is_target = prediction.successors == items[:, None]
    chance = base(items[:, None])[:, 0] + (by_succession * is_target).sum(axis=1)
    bar = (chance * _ROUNDING)[:, None]

    sizes = np.diff(world.group_starts)
    group_sums = np.cumsum(world.zipf)[sizes - 1]
    above = np.minimum(np.searchsorted(-world.zipf, -(bar * group_sums / by_group)), sizes).sum(axis=1)
    seen_above = (base(history) > bar).sum(axis=1)
    of_successors = base(prediction.successors)
    repeated = np.tril(same, k=-1).any(axis=2)
    counts = ~is_target & ~repeated & ~have_seen(history, prediction.successors)
    lifted = (counts & (of_successors <= bar) & (of_successors + extra > bar)).sum(axis=1)
    return 1 + above - seen_above + lifted


def positive_chances(world: World, prediction: Prediction, items: IntArray) -> FloatArray:
    """``[n]`` chance that the user rates the item 4 or more; that it is the next item is evidence of the taste."""
    weights = prediction.posterior * prediction.item_chances(world, items)
    positive = world.rating_chances(taste_utilities(world, items))[..., _POSITIVE_CODE:].sum(axis=-1)
    return (weights * positive).sum(axis=1) / weights.sum(axis=1)


def _auc(scores: FloatArray, positive: NDArray[np.bool_]) -> float | None:
    """Chance that a positive outscores a negative, ties counting half; None without both."""
    # Users with a nearly certain posterior of the same taste have equal chances, up to rounding.
    scores = np.round(scores, _TIE_DECIMALS)
    below, above = np.sort(scores[~positive]), scores[positive]
    if not len(below) or not len(above):
        return None
    wins = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(wins.mean() / 2 / len(below))

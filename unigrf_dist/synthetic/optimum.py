"""How well the best observer does: ranks of held-out items, and the metrics of the evaluation protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.synthetic.observer import Outlook, have_seen, taste_liking
from unigrf_dist.synthetic.world import FloatArray, IntArray, World

RANKING_TASK = "rating >= 4"
_LIKED_CODE = 3
_CUTOFFS = {"hr": (1, 10, 50, 200), "ndcg": (10, 50, 200)}
# Two ways of computing one chance differ by rounding; an item must not outrank itself.
_ROUNDING = 1 + 1e-12
_TIE_DECIMALS = 9


@dataclass
class OptimumTally:
    """Gathers held-out events of one split, however many.

    Attributes:
        ranks: of the held-out items, from 1, user by user in chunks.
        liking_chances: chance of a rating of 4 or more, as the observer sees it.
        liked: whether it was given.
    """

    ranks: list[IntArray] = field(default_factory=list)
    liking_chances: list[FloatArray] = field(default_factory=list)
    liked: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(
        self, world: World, outlook: Outlook, history: IntArray, items: IntArray, ratings: NDArray[np.int16]
    ) -> None:
        """Tally one held-out event of each of ``n`` users, who have met ``history`` ``[n, t]`` before."""
        self.ranks.append(item_ranks(world, outlook, history, items))
        self.liking_chances.append(liking_chances(world, outlook, items))
        self.liked.append(ratings >= _LIKED_CODE)

    def metrics(self) -> dict[str, Any]:
        """The metrics by name, as ``planted.json`` holds them."""
        ranks = np.concatenate(self.ranks)
        retrieval = {f"hr@{k}": float((ranks <= k).mean()) for k in _CUTOFFS["hr"]}
        gains = 1 / np.log2(ranks + 1)
        retrieval |= {f"ndcg@{k}": float((gains * (ranks <= k)).mean()) for k in _CUTOFFS["ndcg"]}
        retrieval["mrr"] = float((1 / ranks).mean())
        chances, liked = np.concatenate(self.liking_chances), np.concatenate(self.liked)
        log_loss = -np.log(np.where(liked, chances, 1 - chances)).mean()
        return {
            "retrieval": retrieval,
            "ranking": {RANKING_TASK: {"auc": _auc(chances, liked), "log_loss": float(log_loss)}},
        }


def item_ranks(world: World, outlook: Outlook, history: IntArray, items: IntArray) -> IntArray:
    """``[n]`` rank, from 1, of each user's item among those the user has not met, by the observer's chances.

    The popularity inside a group falls with the item's number, so that the items above a chance are counted by
    one search per group instead of a look at every item; items met and successors are then put right.
    """
    mixture = outlook.posterior / outlook.unseen
    by_group = (mixture[:, None, :] @ outlook.group_chances)[:, 0]
    by_succession = mixture.sum(axis=1)[:, None] * outlook.successor_chances

    def base(some_items: IntArray) -> FloatArray:
        return np.take_along_axis(by_group, world.group_of[some_items], axis=1) * world.popularity[some_items]

    same = outlook.successors[:, :, None] == outlook.successors[:, None, :]
    extra = np.einsum("ns,nst->nt", by_succession, same)
    is_target = outlook.successors == items[:, None]
    chance = base(items[:, None])[:, 0] + (by_succession * is_target).sum(axis=1)
    bar = (chance * _ROUNDING)[:, None]

    sizes = np.diff(world.group_starts)
    group_sums = np.cumsum(world.zipf)[sizes - 1]
    above = np.minimum(np.searchsorted(-world.zipf, -(bar * group_sums / by_group)), sizes).sum(axis=1)
    met_above = (base(history) > bar).sum(axis=1)
    of_successors = base(outlook.successors)
    repeated = np.tril(same, k=-1).any(axis=2)
    counts = ~is_target & ~repeated & ~have_seen(history, outlook.successors)
    lifted = (counts & (of_successors <= bar) & (of_successors + extra > bar)).sum(axis=1)
    return 1 + above - met_above + lifted


def liking_chances(world: World, outlook: Outlook, items: IntArray) -> FloatArray:
    """``[n]`` chance that the user rates the item 4 or more; that the user met it tells about the taste too."""
    weights = outlook.posterior * outlook.item_chances(world, items)
    liked = world.rating_chances(taste_liking(world, items))[..., _LIKED_CODE:].sum(axis=-1)
    return (weights * liked).sum(axis=1) / weights.sum(axis=1)


def _auc(scores: FloatArray, positive: NDArray[np.bool_]) -> float | None:
    """Chance that a positive outscores a negative, ties counting half; None without both."""
    # Users of one taste whose taste is clear have the same chance, up to rounding.
    scores = np.round(scores, _TIE_DECIMALS)
    below, above = np.sort(scores[~positive]), scores[positive]
    if not len(below) or not len(above):
        return None
    wins = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(wins.mean() / 2 / len(below))

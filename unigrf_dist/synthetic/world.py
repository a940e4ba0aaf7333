"""The fixed tables of a synthetic world: tastes, groups, popularity, successors, ratings.

The docstring of the package defines the generative model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.data.sequences import offsets_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SUCCESSOR_CHANCES = (0.6, 0.3, 0.1)
# A rating is 1 plus the number of thresholds that the noisy utility exceeds.
_THRESHOLDS = (-2.8, -1.6, 0.0, 1.8)
_TASTE_SPREAD = 2.0
_TRANSITION_SPREAD = 1.0
_AFFINITY_SPREAD = 1.4
_QUALITY_SPREAD = 0.4
# Correlation of how often a taste visits a group and how much it likes the group.
_VISIT_AND_LIKE = 0.6


@dataclass(frozen=True)
class World:
    """What is the same for all users. Items are numbered group by group, the most popular of a group first.

    Attributes:
        taste_chances: ``[K]`` share of users of each taste.
        group_chances: ``[G + 1, K, G]`` next group by last group and taste; row ``G`` is for the first event.
        group_starts: ``[G + 1]`` first item of each group.
        group_of: ``[I]`` group of each item.
        popularity: ``[I]`` chance of each item inside its group.
        zipf: ``[largest group]`` popularity by rank, before division by a group's sum.
        successors: ``[I, S]`` items that may follow an item, with chances ``successor_chances`` ``[S]``.
        successor_share: chance that a next item is drawn from the successors of the last one.
        affinity: ``[K, G]`` part of the utility that depends on taste and group.
        quality: ``[I]`` part of the utility that depends on the item.
        item_ids: ``[I]`` dense item id of each item.
    """

    taste_chances: FloatArray
    group_chances: FloatArray
    group_starts: IntArray
    group_of: IntArray
    popularity: FloatArray
    zipf: FloatArray
    successors: IntArray
    successor_chances: FloatArray
    successor_share: float
    affinity: FloatArray
    quality: FloatArray
    item_ids: IntArray

    @property
    def num_tastes(self) -> int:
        return len(self.taste_chances)

    @property
    def num_groups(self) -> int:
        return len(self.group_starts) - 1

    @property
    def num_items(self) -> int:
        return len(self.group_of)

    def rating_chances(self, utility: FloatArray) -> FloatArray:
        """``[..., 5]`` chance of each rating, given the utility ``[...]``."""
        above = _sigmoid(utility[..., None] - np.array(_THRESHOLDS))
        edges = np.concatenate([np.ones_like(above[..., :1]), above, np.zeros_like(above[..., :1])], axis=-1)
        return edges[..., :-1] - edges[..., 1:]

    @staticmethod
    def rating(utility: FloatArray, noise: FloatArray) -> NDArray[np.int16]:
        """``[n]`` behaviour codes (rating less 1), given utilities ``[n]`` and standard logistic noise ``[n]``."""
        return ((utility + noise)[:, None] > np.array(_THRESHOLDS)).sum(axis=1).astype(np.int16)


def build_world(
    *,
    num_items: int,
    num_groups: int,
    num_tastes: int,
    zipf_exponent: float,
    successor_share: float,
    random: np.random.Generator,
) -> World:
    """Draw a world of groups of equal size, plus or minus one item. See ``synthesize`` for the arguments."""
    shape = (num_tastes, num_groups)
    visits = random.standard_normal(shape)
    likes = _VISIT_AND_LIKE * visits + np.sqrt(1 - _VISIT_AND_LIKE**2) * random.standard_normal(shape)
    log_visits = _TASTE_SPREAD * visits
    between = _TRANSITION_SPREAD * random.standard_normal((num_groups, num_groups))
    from_start = np.zeros((1, num_groups))
    sizes = np.full(num_groups, num_items // num_groups)
    sizes[: num_items % num_groups] += 1
    starts = offsets_of(sizes)
    group_of = np.repeat(np.arange(num_groups), sizes)
    zipf = np.arange(1.0, sizes.max() + 1) ** -zipf_exponent
    popularity = zipf[np.arange(num_items) - starts[group_of]] / np.cumsum(zipf)[sizes - 1][group_of]
    return World(
        taste_chances=np.full(num_tastes, 1 / num_tastes),
        group_chances=softmax(np.concatenate([between, from_start])[:, None, :] + log_visits),
        group_starts=starts,
        group_of=group_of,
        popularity=popularity,
        zipf=zipf,
        successors=np.stack([random.permutation(num_items) for _ in _SUCCESSOR_CHANCES], axis=1),
        successor_chances=np.array(_SUCCESSOR_CHANCES),
        successor_share=successor_share,
        affinity=_AFFINITY_SPREAD * likes,
        quality=_QUALITY_SPREAD * random.standard_normal(num_items),
        item_ids=random.permutation(num_items),
    )


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _sigmoid(values: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-values))

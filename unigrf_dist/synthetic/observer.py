"""The best observer: predicts from the world's tables and a user's events, by a posterior of the tastes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.synthetic.world import FloatArray, IntArray, World


@dataclass(frozen=True)
class Prediction:
    """The next event of ``n`` users as the observer predicts it, before seen items are masked.

    Attributes:
        posterior: ``[n, K]`` posterior of the tastes.
        group_chances: ``[n, K, G]`` chance of drawing from each group, given the taste.
        successors: ``[n, S]`` items that may succeed the last one.
        successor_chances: ``[n, S]`` chance of each succession; zero before the first event.
        unseen: ``[n, K]`` probability mass of the unseen items.
    """

    posterior: FloatArray
    group_chances: FloatArray
    successors: IntArray
    successor_chances: FloatArray
    unseen: FloatArray

    def of(self, users: IntArray) -> Prediction:
        """The prediction for some of the users."""
        return Prediction(*(getattr(self, f.name)[users] for f in fields(self)))

    def item_chances(self, world: World, items: IntArray) -> FloatArray:
        """``[n, K]`` chance of one unseen item ``[n]`` per user, given each taste."""
        by_group = np.take_along_axis(self.group_chances, world.group_of[items][:, None, None], axis=2)[..., 0]
        by_succession = (self.successor_chances * (self.successors == items[:, None])).sum(axis=1)
        return (by_group * world.popularity[items][:, None] + by_succession[:, None]) / self.unseen


class Observer:
    """Follows users event by event (Bayes' rule over the tastes).

    Args:
        world: world of the users.
        num_users: number of users.
    """

    def __init__(self, world: World, num_users: int) -> None:
        self._world = world
        self._log_posterior = np.tile(np.log(world.taste_chances), (num_users, 1))
        # Share of each group's popularity that is on items the user has seen.
        self._seen_mass = np.zeros((num_users, world.num_groups))
        self._last: IntArray | None = None

    def keep(self, num_users: int) -> None:
        """Drop all users but the first ``num_users``."""
        self._log_posterior, self._seen_mass = self._log_posterior[:num_users], self._seen_mass[:num_users]
        if self._last is not None:
            self._last = self._last[:num_users]

    def predict(self, history: IntArray) -> Prediction:
        """The prediction for all users.

        Args:
            history: ``[n, t]`` items they have seen so far.
        """
        world, num_users = self._world, len(history)
        relative = np.exp(self._log_posterior - self._log_posterior.max(axis=1, keepdims=True))
        posterior = relative / relative.sum(axis=1, keepdims=True)
        if self._last is None:
            # No last item to succeed, and nothing seen.
            chances = np.repeat(world.group_chances[-1:], num_users, axis=0)
            none = np.zeros((num_users, len(world.successor_chances)))
            return Prediction(posterior, chances, none.astype(np.int64), none, np.ones_like(posterior))
        chances = ((1 - world.successor_share) * world.group_chances)[world.group_of[self._last]]
        successors = world.successors[self._last]
        successor_chances = world.successor_share * np.tile(world.successor_chances, (num_users, 1))
        seen = successor_chances * have_seen(history, successors)
        unseen = 1 - (chances @ self._seen_mass[:, :, None])[..., 0] - seen.sum(axis=1)[:, None]
        return Prediction(posterior, chances, successors, successor_chances, unseen)

    def update(self, prediction: Prediction, items: IntArray, ratings: NDArray[np.int16]) -> None:
        """Update the posterior by the next event of every user: items ``[n]`` and behaviour codes ``[n]``."""
        world, users = self._world, np.arange(len(items))
        chances = prediction.item_chances(world, items)
        rating_chances = world.rating_chances(taste_utilities(world, items))[users, :, ratings]
        self._log_posterior = self._log_posterior + np.log(chances) + np.log(rating_chances)
        self._seen_mass[users, world.group_of[items]] += world.popularity[items]
        self._last = items


def taste_utilities(world: World, items: IntArray) -> FloatArray:
    """``[n, K]`` utility of one item ``[n]`` per user to each taste."""
    return world.affinity[:, world.group_of[items]].T + world.quality[items][:, None]


def have_seen(history: IntArray, items: IntArray) -> NDArray[np.bool_]:
    """``[n, m]`` whether ``items`` ``[n, m]`` are in their user's ``history`` ``[n, t]``."""
    return np.stack([(history == items[:, m, None]).any(axis=1) for m in range(items.shape[1])], axis=1)

"""Draws the events of users, one step of all users at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.data.split import Split
from unigrf_dist.synthetic.observer import Observer, have_seen
from unigrf_dist.synthetic.optimum import OptimumTally
from unigrf_dist.synthetic.world import IntArray, World

# Events of a user from the held-out one on.
_EVENTS_LEFT: dict[Split, int] = {"validation": 2, "test": 1}


@dataclass(frozen=True)
class Walks:
    """Events of ``n`` users, padded.

    Attributes:
        lengths: ``[n]`` events of each user; the columns behind are padding.
        items: ``[n, longest]`` items in the world's numbering.
        ratings: ``[n, longest]`` int16 behaviour codes.
        tastes: ``[n]`` taste of each user.
    """

    lengths: IntArray
    items: IntArray
    ratings: NDArray[np.int16]
    tastes: IntArray


def walk(
    world: World, lengths: IntArray, tallies: dict[Split, OptimumTally], random: np.random.Generator
) -> Walks:
    """Draw the events of users, and tally how well the best observer predicts the held-out ones.

    Args:
        world: world of the users.
        lengths: ``[n]`` events of each user; descending, at least 3.
        tallies: tally of each split; the held-out events of all users are added to them.
        random: generator of all draws.
    """
    tastes = random.choice(world.num_tastes, size=len(lengths), p=world.taste_chances)
    items = np.full((len(lengths), int(lengths[0])), -1)
    ratings = np.zeros(items.shape, np.int16)
    observer = Observer(world, len(lengths))
    for t in range(items.shape[1]):
        active = int(np.searchsorted(-lengths, -t))  # users of more than t events
        observer.keep(active)
        history = items[:active, :t]
        prediction = observer.predict(history)
        chosen = _next_items(world, tastes[:active], history, random)
        utility = world.affinity[tastes[:active], world.group_of[chosen]] + world.quality[chosen]
        given = world.rating(utility, random.logistic(size=active))
        for split, tally in tallies.items():
            users = np.flatnonzero(lengths[:active] - t == _EVENTS_LEFT[split])
            tally.add(world, prediction.of(users), history[users], chosen[users], given[users])
        observer.update(prediction, chosen, given)
        items[:active, t], ratings[:active, t] = chosen, given
    return Walks(lengths, items, ratings, tastes)


def _next_items(world: World, tastes: IntArray, history: IntArray, random: np.random.Generator) -> IntArray:
    """``[n]`` items, drawn again until their user has not seen them."""
    items = draw(world, tastes, history, random)
    redo = np.flatnonzero(have_seen(history, items[:, None])[:, 0])
    while len(redo):
        items[redo] = draw(world, tastes[redo], history[redo], random)
        redo = redo[have_seen(history[redo], items[redo, None])[:, 0]]
    return items


def draw(world: World, tastes: IntArray, history: IntArray, random: np.random.Generator) -> IntArray:
    """``[n]`` items, seen or not."""
    num_users, num_seen = history.shape
    last_group = world.group_of[history[:, -1]] if num_seen else np.full(num_users, world.num_groups)
    edges = np.cumsum(world.group_chances[last_group, tastes], axis=1)
    # Rounding may leave the last edge a little below 1.
    groups = np.minimum((edges < random.random((num_users, 1))).sum(axis=1), world.num_groups - 1)
    starts, stops = world.group_starts[groups], world.group_starts[groups + 1]
    mass = np.cumsum(world.zipf)
    rank = np.searchsorted(mass, random.random(num_users) * mass[stops - starts - 1])
    items = starts + np.minimum(rank, stops - starts - 1)
    if num_seen:
        follows = random.random(num_users) < world.successor_share
        last = history[follows, -1]
        which = np.searchsorted(np.cumsum(world.successor_chances)[:-1], random.random(len(last)))
        items[follows] = world.successors[last, which]
    return items

"""Choosing lambda on validation: how much ranking may move a list that retrieval has found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unigrf_dist.data.sequences import Sequences, offsets_of
from unigrf_dist.data.split import has_held_out, held_out_position
from unigrf_dist.evaluate.catalogue import Found
from unigrf_dist.serve.lists import blended
from unigrf_dist.serve.recommender import Recommender

LAMBDAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
LARGEST_LOSS = 0.01
"""Share of NDCG@10 that a blend may cost."""
CANDIDATES = 100
MOST_USERS = 20_000
_LENGTH = 10
_USERS_TOGETHER = 64


@dataclass(frozen=True)
class Point:
    """A lambda of one task and what it comes to, the lambdas of the tasks before it held.

    Attributes:
        value: lambda.
        ndcg: NDCG@10 over all users.
        liked: NDCG@10 over the users whose held-out event has label 1 under the task; None where there are none.
    """

    value: float
    ndcg: float
    liked: float | None


@dataclass(frozen=True)
class Choice:
    """What validation chose.

    Attributes:
        checkpoint: whose weights.
        num_users: users it was measured on.
        blend: lambda of each task, by rule.
        curves: the points of each task.
    """

    checkpoint: str
    num_users: int
    blend: dict[str, float]
    curves: dict[str, list[Point]]

    def to_dict(self) -> dict[str, Any]:
        """As ``blend.json`` holds it."""
        return {**asdict(self), "metric": "ndcg@10", "split": "validation", "largest_loss": LARGEST_LOSS}


def choose_blend(recommender: Recommender, *, on_progress: Callable[[int, int], None] | None = None) -> Choice:
    """The largest lambda of each task, one task after the other, that

    * loses at most 1 % of the NDCG@10 that all lambdas 0 have, and
    * lowers NDCG@10 on the liked items of no task: over users whose held-out event has its label 1.

    Measured on validation, of every user or of 20,000 spread evenly over the data set. As in evaluation, the
    held-out item stays a candidate if the user had seen it before.

    Args:
        recommender: the model and its data set.
        on_progress: told the users done and their total.
    """
    found, logits, targets, labels = _held_out(recommender, on_progress)
    num_tasks = len(recommender.tasks)

    def measure(blend: Tensor) -> tuple[float, list[float | None]]:
        items = blended(found, logits, blend, _LENGTH).items
        gains = ((items == targets[:, None]) / (torch.arange(_LENGTH) + 2.0).log2()).sum(1)
        liked = [gains[labels[:, task] == 1] for task in range(num_tasks)]
        return float(gains.mean()), [float(of.mean()) if len(of) else None for of in liked]

    chosen = torch.zeros(num_tasks, dtype=torch.float64)
    least, liked_before = measure(chosen)
    curves: dict[str, list[Point]] = {}
    for number, task in enumerate(recommender.tasks):
        curves[task], best = [], 0.0
        for value in LAMBDAS:
            blend = chosen.clone()
            blend[number] = value
            ndcg, liked = measure(blend)
            curves[task].append(Point(value, ndcg, liked[number]))
            pairs = zip(liked, liked_before, strict=True)
            keeps_liked = all(now >= then for now, then in pairs if now is not None and then is not None)
            if liked[number] is not None and ndcg >= (1 - LARGEST_LOSS) * least and keeps_liked:
                best = max(best, value)
        chosen[number] = best
    blend_by_task = dict(zip(recommender.tasks, chosen.tolist(), strict=True))
    return Choice(recommender.run.checkpoint, len(targets), blend_by_task, curves)


def _held_out(
    recommender: Recommender, on_progress: Callable[[int, int], None] | None
) -> tuple[Found, Tensor, Tensor, Tensor]:
    """Candidates and their logits, target items ``[n]`` and their labels ``[n, A]``, of validation."""
    num_users = len(recommender.users.raw_ids())
    users = np.unique(np.linspace(0, num_users - 1, min(num_users, MOST_USERS)).astype(np.int64))
    options = recommender.options(k=_LENGTH, candidates=CANDIDATES, blend={})
    parts: list[tuple[Found, Tensor]] = []
    targets, labels = [torch.zeros(0, dtype=torch.int64)], [recommender.run.model.labels[:0]]
    for first in range(0, len(users), _USERS_TOGETHER):
        known = recommender.histories_of(users[first : first + _USERS_TOGETHER])
        events = known.take(np.flatnonzero(has_held_out(known.lengths)))
        if events.num_users:
            place = held_out_position(events.lengths, "validation")
            at = events.offsets[:-1] + place
            target = torch.from_numpy(events.item_ids[at])
            history = events.cut(np.arange(events.num_users), np.zeros_like(place), place)
            seen = _without(history, events.item_ids[at])
            parts.append(recommender.stages.candidates(history, events.timestamps[at], options, seen=seen))
            targets.append(target)
            labels.append(recommender.run.model.labels[torch.from_numpy(events.behaviours[at].astype(np.int64))])
        if on_progress is not None:
            on_progress(min(first + _USERS_TOGETHER, len(users)), len(users))
    found = Found(*(torch.cat([getattr(part, name) for part, _ in parts]) for name in Found.__annotations__))
    return found, torch.cat([logits for _, logits in parts]), torch.cat(targets), torch.cat(labels)


def _without(history: Sequences, targets: np.ndarray) -> tuple[Tensor, Tensor]:
    """Items of the histories but each user's target, and their offsets."""
    users = np.repeat(np.arange(history.num_users), history.lengths)
    others = history.item_ids != targets[users]
    lengths = np.bincount(users[others], minlength=history.num_users)
    return torch.from_numpy(history.item_ids[others]), torch.from_numpy(offsets_of(lengths))

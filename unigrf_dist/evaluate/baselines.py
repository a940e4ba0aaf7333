"""Baselines without a model: popularity and recency, under the same protocol and metrics.

They use the training events and, like the model, the user's history in the window before the held-out event.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unigrf_dist.data import EvaluationBatch
from unigrf_dist.evaluate.metrics import NOT_FOUND, rank_from_counts
from unigrf_dist.evaluate.scorer import UserScores, target_items
from unigrf_dist.evaluate.training_statistics import TrainingStatistics, previous_labels

SMOOTHING = 10.0
"""Events with the average label that are added to each item's own, so that one event does not mean 0 or 1."""


class Popularity:
    """Retrieval: items by training events. Ranking: the item's mean training label, smoothed.

    Args:
        statistics: counts over the training events.
        live: ``[V]`` bool, the items that are candidates; None for all.
    """

    def __init__(self, statistics: TrainingStatistics, live: Tensor | None = None) -> None:
        self._order = SharedOrder(statistics.counts, live)
        # One event of each kind is added, so that the average is never 0 or 1.
        average = (statistics.positive.sum(0) + 1) / (statistics.labelled.sum(0) + 2)
        positive = statistics.positive + SMOOTHING * average.double()
        negative = statistics.labelled - statistics.positive + SMOOTHING * (1 - average.double())
        self._logits = (positive / negative).log()

    def score_users(self, batch: EvaluationBatch) -> UserScores:
        targets = target_items(batch.batch)
        return UserScores(self._order.ranks(batch), self._logits[targets])


class MostRecent:
    """Retrieval: items by the time of their last training event. Ranking: the user's latest label, as the
    probability that such a label was followed by a positive one in training.

    Args:
        statistics: counts over the training events.
        task_labels: ``[num_behaviours, A]``, NaN where a behaviour has no label.
        live: ``[V]`` bool, the items that are candidates; None for all.
    """

    def __init__(self, statistics: TrainingStatistics, task_labels: Tensor, live: Tensor | None = None) -> None:
        self._order, self._task_labels = SharedOrder(statistics.latest, live), task_labels
        after = statistics.followed.double()
        # Of users without an earlier label nothing is known but the average.
        either = after.sum(1, keepdim=True)
        odds = (torch.cat([after, either], dim=1) + 1).unbind(2)
        self._logits = (odds[1] / odds[0]).log()  # [A, 3]: after a 0, after a 1, after nothing

    def score_users(self, batch: EvaluationBatch) -> UserScores:
        events = batch.batch
        latest = previous_labels(self._task_labels[events.behaviours], events.offsets)[events.offsets[1:] - 1]
        state = latest.nan_to_num(nan=2.0).long()
        return UserScores(self._order.ranks(batch), self._logits.T.gather(0, state))


class SharedOrder:
    """One order of the catalogue for all users, without each user's seen items.

    Args:
        values: ``[V]`` score of every item, higher is better.
        live: ``[V]`` bool, the items that are candidates; None for all.
    """

    def __init__(self, values: Tensor, live: Tensor | None = None) -> None:
        self._values, self._live = values, live
        self._sorted = (values if live is None else values[live]).sort().values

    def ranks(self, batch: EvaluationBatch) -> Tensor:
        """``[B]`` int64, as the catalogue's ``target_ranks`` would give for these scores."""
        targets = target_items(batch.batch)
        goal = self._values[targets]
        upto = torch.searchsorted(self._sorted, goal, right=True)
        better = self._sorted.numel() - upto
        equal = upto - torch.searchsorted(self._sorted, goal) - 1
        rows, items = _once_each(batch, self._values.numel())
        other = items != targets[rows]
        if self._live is not None:
            other &= self._live[items]
        rows, value = rows[other], self._values[items[other]]
        better -= rows[value > goal[rows]].bincount(minlength=targets.numel())
        equal -= rows[value == goal[rows]].bincount(minlength=targets.numel())
        ranks = rank_from_counts(better, equal)
        return ranks if self._live is None else ranks.masked_fill(~self._live[targets], NOT_FOUND)


def _once_each(batch: EvaluationBatch, num_items: int) -> tuple[Tensor, Tensor]:
    """Row and item of everything seen, repeated items once."""
    rows = torch.arange(batch.batch.num_users).repeat_interleave(batch.seen_offsets.diff())
    pairs = (rows * num_items + batch.seen_item_ids).unique()
    return pairs // num_items, pairs % num_items

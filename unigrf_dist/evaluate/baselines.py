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
        self._logits = smoothed_logits(statistics.positive, statistics.labelled, average_label(statistics))

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


def average_label(statistics: TrainingStatistics) -> Tensor:
    """``[A]`` float64, mean training label of each task; without any, one half."""
    # One event of each kind is added, so that the average is never 0 or 1.
    return ((statistics.positive.sum(0) + 1) / (statistics.labelled.sum(0) + 2)).double()


def smoothed_logits(positive: Tensor, labelled: Tensor, average: Tensor) -> Tensor:
    """``[N, A]`` float64, log-odds of the mean label of each row after ``SMOOTHING`` events of the average.

    Args:
        positive: ``[N, A]`` labels that are 1.
        labelled: ``[N, A]`` labels.
        average: ``[A]``, between 0 and 1.
    """
    ones = positive + SMOOTHING * average
    zeros = labelled - positive + SMOOTHING * (1 - average)
    return (ones / zeros).log()


class RepeatLast:
    """Retrieval: the items in the user's window, the latest first, and then the others by training events.

    Args:
        statistics: counts over the training events.
    """

    def __init__(self, statistics: TrainingStatistics) -> None:
        self._order = SharedOrder(statistics.counts)

    def score_users(self, batch: EvaluationBatch) -> UserScores:
        """Ranks alone; what the protocol removes from the ranking is not looked at, so for the rule ``keep``."""
        events = batch.batch
        users, targets = events.user_indices, target_items(events)
        history = torch.ones(events.num_events, dtype=torch.bool)
        history[events.offsets[1:] - 1] = False
        window, of_user = events.item_ids[history], users[history]
        # The last event of each item alone: items in the order of their latest event.
        latest = _is_last_of_its_kind(of_user * self._order.num_items + window)
        window, of_user = window[latest], of_user[latest]
        counts = of_user.bincount(minlength=events.num_users)
        offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        others = EvaluationBatch(events, window, offsets, batch.target_repeats)
        after_them_all = self._order.ranks(others) + counts
        here = (window == targets[of_user]).nonzero()[:, 0]
        after_them_all[of_user[here]] = offsets[1:][of_user[here]] - here
        return UserScores(after_them_all, None)


class SharedOrder:
    """One order of the catalogue for all users, without each user's seen items.

    Args:
        values: ``[V]`` score of every item, higher is better.
        live: ``[V]`` bool, the items that are candidates; None for all.
    """

    def __init__(self, values: Tensor, live: Tensor | None = None) -> None:
        self._values, self._live = values, live
        self._sorted = (values if live is None else values[live]).sort().values
        self.num_items = values.numel()

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


def _is_last_of_its_kind(keys: Tensor) -> Tensor:
    """``[N]`` bool, whether no equal key comes after."""
    ordered, order = keys.sort(stable=True)
    is_last = torch.ones_like(keys, dtype=torch.bool)
    is_last[order[:-1]] = ordered[1:] != ordered[:-1]
    return is_last


def _once_each(batch: EvaluationBatch, num_items: int) -> tuple[Tensor, Tensor]:
    """Row and item of everything seen, repeated items once."""
    rows = torch.arange(batch.batch.num_users).repeat_interleave(batch.seen_offsets.diff())
    pairs = (rows * num_items + batch.seen_item_ids).unique()
    return pairs // num_items, pairs % num_items

"""Ranking from two means: of the item's labels in training, and of the user's labels in the window before.

Legend: ``N`` users, ``A`` ranking tasks. Both means are smoothed as the popularity baseline's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from unigrf_dist.data import EvaluationBatch, JaggedBatch
from unigrf_dist.evaluate.baselines import average_label, smoothed_logits
from unigrf_dist.evaluate.scorer import UserScores, target_items, target_labels
from unigrf_dist.evaluate.training_statistics import TrainingStatistics
from unigrf_dist.ranks.collective import Collective

L2_PENALTY = 1.0
"""Half of it times the squared weights is added to the regression's summed log loss; the intercept is free."""


class LabelMeans:
    """The two means as features.

    Args:
        statistics: counts over the training events.
        task_labels: ``[num_behaviours, A]``, NaN where a behaviour has no label.
    """

    def __init__(self, statistics: TrainingStatistics, task_labels: Tensor) -> None:
        self._average, self._task_labels = average_label(statistics), task_labels
        self.average_logits = self._average.logit()  # [A]
        self._of_items = smoothed_logits(statistics.positive, statistics.labelled, self._average)

    def features(self, batch: JaggedBatch) -> Tensor:
        """``[N, A, 2]`` float64, by how much the log-odds of the held-out event's item and of the user exceed
        those of all training events."""
        known = self._task_labels[batch.behaviours].clone()
        known[batch.offsets[1:] - 1] = torch.nan
        counts = torch.zeros(batch.num_users, known.shape[1], dtype=torch.float64)
        positive = counts.clone().index_add_(0, batch.user_indices, (known == 1).double())
        labelled = counts.index_add_(0, batch.user_indices, (~known.isnan()).double())
        of_users = smoothed_logits(positive, labelled, self._average)
        return torch.stack([self._of_items[target_items(batch)], of_users], dim=2) - self.average_logits[:, None]


class FromLabelMeans:
    """Ranking by ``logit = intercept + weights * features`` of ``LabelMeans``.

    Args:
        means: where the features come from.
        coefficients: ``[A, 3]`` intercept, weight of the item's mean, weight of the user's.
    """

    def __init__(self, means: LabelMeans, coefficients: Tensor) -> None:
        self._means, self.coefficients = means, coefficients

    def score_users(self, batch: EvaluationBatch) -> UserScores:
        features = self._means.features(batch.batch)
        logits = self.coefficients[:, 0] + (features * self.coefficients[:, 1:]).sum(2)
        return UserScores(None, logits)


def sum_of_means(means: LabelMeans) -> FromLabelMeans:
    """User mean + item mean: both deviations count in full."""
    ones = torch.ones(means.average_logits.numel(), 2, dtype=torch.float64)
    return FromLabelMeans(means, torch.cat([means.average_logits[:, None], ones], dim=1))


def regression_on_means(
    means: LabelMeans, batches: Sequence[EvaluationBatch], task_labels: Tensor
) -> FromLabelMeans:
    """Logistic regression on both means, fitted to held-out events; collective.

    Where these events hold one class of labels only, there is nothing to fit and both means count in full.

    Args:
        means: where the features come from.
        batches: the events to fit to, this rank's users.
        task_labels: ``[num_behaviours, A]``, NaN where a behaviour has no label.
    """
    num_tasks = means.average_logits.numel()
    user_ids = [torch.zeros(0, dtype=torch.int64)] + [each.batch.user_ids for each in batches]
    features = [torch.zeros(0, num_tasks, 2, dtype=torch.float64)]
    features += [means.features(each.batch) for each in batches]
    labels = [torch.zeros(0, num_tasks, dtype=torch.float64)]
    labels += [target_labels(each.batch, task_labels) for each in batches]
    # In the order of users, so that sums over them are the same bits on any number of ranks.
    order = _gathered(user_ids).argsort()
    all_features, all_labels = _gathered(features)[order].numpy(), _gathered(labels)[order].numpy()
    coefficients = sum_of_means(means).coefficients.clone()
    for task in range(num_tasks):
        known = ~np.isnan(all_labels[:, task])
        of_task = all_labels[known, task]
        if 0 < of_task.sum() < of_task.size:
            fitted = logistic_regression(all_features[known, task], of_task)
            coefficients[task] = torch.from_numpy(fitted)
    return FromLabelMeans(means, coefficients)


def logistic_regression(features: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intercept and weights of the least penalised log loss (``L2_PENALTY``).

    Args:
        features: ``[N, F]``.
        labels: ``[N]``, 0 or 1, both present.

    Returns:
        ``[1 + F]`` float64.
    """
    columns = np.concatenate([np.ones((len(labels), 1)), features], axis=1)
    penalty = np.array([0.0] + [L2_PENALTY] * features.shape[1])

    def loss_and_gradient(beta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        # Plain sums: a matrix product would add in an order that depends on the number of threads.
        logits = (columns * beta).sum(1)
        loss = np.logaddexp(0, logits).sum() - (labels * logits).sum() + 0.5 * (penalty * beta**2).sum()
        # tanh does not overflow where exp would.
        errors = 0.5 + 0.5 * np.tanh(logits / 2) - labels
        return float(loss) / len(labels), ((columns * errors[:, None]).sum(0) + penalty * beta) / len(labels)

    start = np.zeros(columns.shape[1])
    fitted = minimize(loss_and_gradient, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return np.asarray(fitted.x)


def _gathered(parts: list[Tensor]) -> Tensor:
    return torch.cat(Collective().gather_rows(torch.cat(parts)))

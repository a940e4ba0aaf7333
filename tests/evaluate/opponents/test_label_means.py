"""Ranking from means: the features against loops, the regression against scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.evaluate.small_data import TASK_LABELS, TASKS, Event, drawn_users, write_users
from unigrf_dist.data import EvaluationStream
from unigrf_dist.evaluate.baselines import SMOOTHING
from unigrf_dist.evaluate.opponents.label_means import (
    LabelMeans,
    logistic_regression,
    regression_on_means,
    sum_of_means,
)
from unigrf_dist.evaluate.training_statistics import training_statistics

USERS = drawn_users(40)
ENOUGH = [user for user in USERS if len(user) >= 3]
TRAINING = [user[:-2] if len(user) >= 3 else user for user in USERS]
WINDOW = 4


def labels_of(events: list[Event], task: int) -> list[float]:
    return [label for _, b, _ in events if not math.isnan(label := float(TASK_LABELS[b, task]))]


def test_the_sum_of_means_adds_what_item_and_user_exceed_the_average_by(tmp_path: Path) -> None:
    dataset = write_users(tmp_path / "data", USERS)
    means = LabelMeans(training_statistics(dataset, TASK_LABELS, rank=0, world_size=1), TASK_LABELS)
    stream = EvaluationStream(dataset, split="test", batch_users=7, max_events=WINDOW, rank=0, world_size=1)
    scores = [sum_of_means(means).score_users(batch) for batch in stream]
    assert {each.ranks for each in scores} == {None}
    logits = torch.cat([each.logits for each in scores])
    for task in range(len(TASKS)):
        everything = [label for user in TRAINING for label in labels_of(user, task)]
        average = (sum(everything) + 1) / (len(everything) + 2)

        def log_odds(labels: list[float], average: float = average) -> float:
            mean = (sum(labels) + SMOOTHING * average) / (len(labels) + SMOOTHING)
            return math.log(mean / (1 - mean))

        for user, logit in zip(ENOUGH, logits[:, task].tolist(), strict=True):
            of_item = [event for other in TRAINING for event in other if event[0] == user[-1][0]]
            item, own = log_odds(labels_of(of_item, task)), log_odds(labels_of(user[-1 - WINDOW : -1], task))
            assert logit == pytest.approx(item + own - math.log(average / (1 - average)), abs=1e-6)


def test_the_regression_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 2)) * [1.0, 3.0]
    labels = (generator.random(200) < 1 / (1 + np.exp(0.5 - features @ [0.8, -0.2]))).astype(float)
    other = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(features, labels)
    expected = [*other.intercept_, *other.coef_[0]]
    assert logistic_regression(features, labels).tolist() == pytest.approx(expected, abs=1e-5)


def test_classes_that_a_feature_parts_leave_finite_weights() -> None:
    features = np.array([[-1.0, 0.0], [-2.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    fitted = logistic_regression(features, np.array([0.0, 0.0, 1.0, 1.0]))
    assert np.isfinite(fitted).all()
    assert fitted[1] > 0.5


def test_events_of_one_class_fit_nothing_and_both_means_count_in_full(tmp_path: Path) -> None:
    users = [[(item, 2 if i >= len(user) - 2 else b, t) for i, (item, b, t) in enumerate(user)] for user in USERS]
    dataset = write_users(tmp_path / "data", users)
    means = LabelMeans(training_statistics(dataset, TASK_LABELS, rank=0, world_size=1), TASK_LABELS)
    stream = EvaluationStream(dataset, split="validation", batch_users=7, max_events=WINDOW, rank=0, world_size=1)
    fitted = regression_on_means(means, list(stream), TASK_LABELS)
    assert fitted.coefficients.tolist() == sum_of_means(means).coefficients.tolist()

"""Bins of predictions, and intervals of ranking metrics, where every value can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.metrics import calibration_bins, ranking_metrics, retrieval_metrics


def logits_of(probabilities: list[float]) -> torch.Tensor:
    return torch.tensor([math.log(p / (1 - p)) for p in probabilities], dtype=torch.float64)


def test_bins_say_where_they_begin_and_end_and_what_was_observed() -> None:
    probabilities = [0.04 * (i + 1) for i in range(20)]
    labels = [float(i % 4 == 3) for i in range(20)]  # one of the two users of every other bin
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    bins = calibration_bins(logits_of(probabilities)[order], torch.tensor(labels)[order])
    assert len(bins) == 10
    for index, each in enumerate(bins):
        low, high = probabilities[2 * index], probabilities[2 * index + 1]
        assert (each.low, each.high, each.mean_predicted) == pytest.approx((low, high, (low + high) / 2))
        assert (each.observed, each.count) == (0.5 * (index % 2), 2)


@pytest.mark.parametrize(("num", "counts"), [(1, [1]), (3, [1, 1, 1]), (10, [1] * 10), (11, [1] * 9 + [2])])
def test_few_users_have_a_bin_each(num: int, counts: list[int]) -> None:
    bins = calibration_bins(logits_of([0.05 * (i + 1) for i in range(num)]), torch.ones(num))
    assert [each.count for each in bins] == counts


def test_users_without_a_label_are_in_no_bin() -> None:
    bins = calibration_bins(logits_of([0.1, 0.9, 0.2]), torch.tensor([1.0, math.nan, 0.0]))
    assert [(each.observed, each.count) for each in bins] == [(1.0, 1), (0.0, 1)]


def test_the_calibration_error_of_one_bin_is_its_gap() -> None:
    metrics = ranking_metrics(torch.zeros(5), torch.tensor([1.0, 0, 0, 0, 0]), Bootstrap(samples=0))
    assert (metrics["ece"].value, metrics["calibration"].value) == pytest.approx((0.3, 2.5))
    # Ten users in ten bins, each 0.1 from its label.
    labels = torch.tensor([0.0] * 5 + [1.0] * 5)
    probabilities = [0.1 - 0.001 * i for i in range(5)] + [0.9 + 0.001 * i for i in range(5)]
    metrics = ranking_metrics(logits_of(probabilities), labels, Bootstrap(samples=0))
    assert metrics["ece"].value == pytest.approx(0.098)


def test_intervals_leave_out_resamples_without_a_positive() -> None:
    metrics = ranking_metrics(torch.zeros(5), torch.tensor([1.0, 0, 0, 0, 0]), Bootstrap(samples=1000))
    # With c of 5 positive the ratio is 0.5 / (c / 5). Among resamples with a positive, c > 3 in 1%, c > 2 in 9%,
    # c = 1 in 61%.
    calibration = metrics["calibration"]
    assert (calibration.value, calibration.low, calibration.high) == pytest.approx((2.5, 2.5 / 3, 2.5))
    # |0.5 - c / 5| is 0.1 for c = 2 or 3 (26%) and 0.5 for c = 0 (33%).
    assert (metrics["ece"].low, metrics["ece"].high) == pytest.approx((0.1, 0.5))
    loss = metrics["log_loss"]
    assert (loss.value, loss.low, loss.high) == pytest.approx((math.log(2),) * 3)
    assert (metrics["auc"].low, metrics["auc"].high) == (0.5, 0.5)


def test_metrics_that_are_equal_for_all_users_have_an_interval_of_no_width() -> None:
    metrics = retrieval_metrics(torch.full((7,), 3), Bootstrap(samples=50))
    expected = {"hr@1": 0.0, "hr@10": 1.0, "ndcg@10": 0.5, "mrr": 1 / 3}
    for name, value in expected.items():
        metric = metrics[name]
        assert (metric.value, metric.low, metric.high) == pytest.approx((value,) * 3)

"""Intervals: the width that theory gives, weights that scikit-learn agrees with, seeded and fast enough."""

from __future__ import annotations

import math
import time

import pytest
import torch
from sklearn.metrics import roc_auc_score

from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.metrics import auc_statistic, ranking_metrics, retrieval_metrics


def test_interval_of_a_share_has_the_width_of_the_normal_approximation() -> None:
    ranks = torch.tensor([1] * 300 + [1000] * 700)
    metric = retrieval_metrics(ranks, Bootstrap(samples=4000))["hr@1"]
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert metric.value == 0.3
    assert (metric.low, metric.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.1 * half)


def test_auc_of_a_resample_is_scikit_learns_with_these_weights() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = (torch.randn(60, generator=generator, dtype=torch.float64) * 4).round().sort().values
    labels = (torch.rand(60, generator=generator) < 0.4).double()
    counts = torch.randint(0, 4, (5, 60), generator=generator).double()
    for row, auc in zip(counts, auc_statistic(logits, labels)(counts), strict=True):
        assert float(auc) == pytest.approx(roc_auc_score(labels, logits, sample_weight=row), abs=1e-12)


def test_a_resample_counts_as_many_users_as_there_are() -> None:
    seen = []
    Bootstrap(samples=7).metrics(lambda counts: seen.append(counts) or counts[:, :1], 11)
    once, *resampled = seen
    assert once.tolist() == [[1.0] * 11]
    assert torch.cat(resampled).sum(1).tolist() == [11.0] * 7


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    ranks = torch.arange(1, 400)
    first, again, other = (
        retrieval_metrics(ranks, Bootstrap(samples=200, seed=seed))["mrr"] for seed in (4, 4, 5)
    )
    assert first == again
    assert first != other


def test_resamples_without_a_class_do_not_spoil_the_interval() -> None:
    labels = torch.tensor([1.0] + [0.0] * 4)  # a third of the resamples misses the only positive
    auc = ranking_metrics(torch.arange(5.0), labels, Bootstrap(samples=200))["auc"]
    assert (auc.value, auc.low, auc.high) == (0.0, 0.0, 0.0)


def test_no_samples_make_no_interval() -> None:
    metric = retrieval_metrics(torch.tensor([1, 2]), Bootstrap(samples=0))["hr@1"]
    assert (metric.value, metric.low, metric.high) == (0.5, None, None)


def test_a_thousand_resamples_of_six_thousand_users_take_seconds() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6000, generator=generator)
    labels = (torch.rand(6000, generator=generator) < 0.5).float()
    begun = time.process_time()
    ranking_metrics(logits, labels, Bootstrap(samples=1000))
    # CPU time, so that other work on the machine does not count. 0.7 s is usual.
    assert time.process_time() - begun < 4

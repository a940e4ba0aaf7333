"""Metrics against fractions worked out by hand, scikit-learn, torchmetrics and a loop over all pairs."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torchmetrics.functional.classification import binary_auroc

from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.metric import Metric
from unigrf_dist.evaluate.metrics import (
    HIT_RATE_AT,
    calibration_bins,
    rank_from_counts,
    ranking_metrics,
    retrieval_metrics,
)

NO_INTERVALS = Bootstrap(samples=0)
NAN = math.nan


def retrieval(ranks: list[int]) -> dict[str, float | None]:
    return {name: metric.value for name, metric in retrieval_metrics(torch.tensor(ranks), NO_INTERVALS).items()}


def ranking(logits: list[float], labels: list[float]) -> dict[str, Metric]:
    return ranking_metrics(torch.tensor(logits), torch.tensor(labels), NO_INTERVALS)


def drawn(num: int, seed: int, *, distinct: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels that depend on them; with ``distinct`` the logits repeat."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num, generator=generator, dtype=torch.float64)
    if distinct is not None:
        logits = (logits * distinct / 8).round() * 8 / distinct
    labels = (torch.rand(num, generator=generator) < logits.sigmoid()).double()
    return logits, labels


def test_retrieval_metrics_are_the_fractions_worked_by_hand() -> None:
    # 1 / log2(1 + rank) of these ranks is 1, 1/2, 1/3, 1/4, 1/6, 1/8.
    metrics = retrieval([1, 3, 7, 15, 63, 255])
    expected = {
        "hr@1": Fraction(1, 6),
        "hr@10": Fraction(3, 6),
        "hr@50": Fraction(4, 6),
        "hr@200": Fraction(5, 6),
        "ndcg@10": Fraction(11, 36),
        "ndcg@50": Fraction(25, 72),
        "ndcg@200": Fraction(27, 72),
        "mrr": sum(Fraction(1, rank) for rank in (1, 3, 7, 15, 63, 255)) / 6,
    }
    assert metrics == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-14)


@pytest.mark.parametrize("k", HIT_RATE_AT)
def test_rank_k_is_a_hit_at_k_and_rank_k_plus_one_is_not(k: int) -> None:
    assert retrieval([k])[f"hr@{k}"] == 1.0
    assert retrieval([k + 1])[f"hr@{k}"] == 0.0


def test_ndcg_is_cut_at_k_and_mrr_is_not() -> None:
    metrics = retrieval([11])
    assert metrics["ndcg@10"] == 0.0
    assert metrics["ndcg@50"] == pytest.approx(1 / math.log2(12))
    assert metrics["mrr"] == pytest.approx(1 / 11)


def test_half_of_the_equals_stand_before_the_target_rounded_up() -> None:
    better, equal = torch.tensor([0, 0, 0, 0, 5]), torch.tensor([0, 1, 2, 3, 4])
    assert rank_from_counts(better, equal).tolist() == [1, 2, 2, 3, 8]


@pytest.mark.parametrize("distinct", [None, 40, 3])
@pytest.mark.parametrize("num", [2, 3, 17, 1000])
def test_ranking_metrics_agree_with_scikit_learn(num: int, distinct: int | None) -> None:
    logits, labels = drawn(num, seed=num, distinct=distinct)
    labels[0], labels[-1] = 1.0, 0.0
    metrics = ranking_metrics(logits, labels, NO_INTERVALS)
    probability = logits.sigmoid()
    assert metrics["auc"].value == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    assert metrics["log_loss"].value == pytest.approx(log_loss(labels, probability), abs=1e-12)
    assert metrics["calibration"].value == pytest.approx(float(probability.mean() / labels.mean()), rel=1e-12)


def test_auc_agrees_with_torchmetrics_and_with_all_pairs() -> None:
    logits, labels = drawn(200, seed=3, distinct=20)
    auc = ranking_metrics(logits, labels, NO_INTERVALS)["auc"].value
    pairs = [(p, n) for p in logits[labels == 1].tolist() for n in logits[labels == 0].tolist()]
    by_hand = Fraction(sum(2 * (p > n) + (p == n) for p, n in pairs), 2 * len(pairs))
    assert auc == pytest.approx(float(by_hand), abs=1e-14)
    assert auc == pytest.approx(float(binary_auroc(logits.sigmoid(), labels.long(), thresholds=None)), abs=1e-6)


def test_auc_is_of_logits_where_probabilities_are_all_one() -> None:
    assert ranking([40.0, 50.0, 60.0, 70.0], [0, 0, 1, 1])["auc"].value == 1.0


def test_log_loss_of_a_sure_mistake_is_its_logit() -> None:
    assert ranking([1000.0, -1000.0], [0, 1])["log_loss"].value == 1000.0


def test_users_without_a_label_change_nothing() -> None:
    logits, labels = [0.3, -1.0, 2.0, 0.1, -0.4], [1.0, 0.0, 1.0, 0.0, 1.0]
    assert ranking([*logits, 9.0, -9.0], [*labels, NAN, NAN]) == ranking(logits, labels)


@pytest.mark.parametrize(
    ("labels", "auc_reason", "calibration_reason"),
    [
        ([0.0, 0.0, 0.0], "all 3 labels are negative", "no label is positive"),
        ([1.0, 1.0, NAN], "all 2 labels are positive", ""),
    ],
)
def test_auc_of_one_class_is_undefined_and_says_why(
    labels: list[float], auc_reason: str, calibration_reason: str
) -> None:
    for bootstrap in (NO_INTERVALS, Bootstrap(samples=20)):
        metrics = ranking_metrics(torch.tensor([0.1, 0.2, 0.3]), torch.tensor(labels), bootstrap)
        assert (metrics["auc"].value, metrics["auc"].reason) == (None, auc_reason)
        assert metrics["calibration"].reason == calibration_reason
        assert (metrics["calibration"].value is None) == bool(calibration_reason)
        assert metrics["log_loss"].value is not None


def test_without_labels_or_users_every_metric_is_undefined() -> None:
    assert {metric.reason for metric in ranking([0.5, 1.0], [NAN, NAN]).values()} == {"no labels"}
    nobody = retrieval_metrics(torch.zeros(0, dtype=torch.int64), Bootstrap())
    assert {(metric.value, metric.reason) for metric in nobody.values()} == {(None, "no users")}
    assert calibration_bins(torch.zeros(0), torch.zeros(0)) == []


def test_calibration_error_is_the_mean_gap_of_the_bins_worked_by_hand() -> None:
    # Twenty users, so two per bin. p = 1/5 with one positive of four, p = 4/5 with twelve of sixteen.
    logits = [math.log(1 / 4)] * 4 + [math.log(4)] * 16
    labels = [1.0, 0, 0, 0] + [1.0] * 12 + [0.0] * 4
    low, high = calibration_bins(torch.tensor(logits), torch.tensor(labels))
    assert (low.count, low.observed, high.count, high.observed) == (4, 0.25, 16, 0.75)
    assert (low.mean_predicted, high.mean_predicted) == pytest.approx((0.2, 0.8))
    gap = Fraction(4, 20) * Fraction(1, 20) + Fraction(16, 20) * Fraction(1, 20)
    assert ranking(logits, labels)["ece"].value == pytest.approx(float(gap), abs=1e-7)


def test_bins_hold_equal_counts_and_every_user_once() -> None:
    logits, labels = drawn(1003, seed=5)
    bins = calibration_bins(logits, labels)
    assert [each.count for each in bins] == pytest.approx([100] * 10, abs=3)
    assert sum(each.count for each in bins) == 1003
    assert sum(each.observed * each.count for each in bins) == pytest.approx(float(labels.sum()))
    edges = [edge for each in bins for edge in (each.low, each.high)]
    assert edges == sorted(edges)


def test_the_order_of_users_does_not_matter() -> None:
    logits, labels = drawn(300, seed=7, distinct=30)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    mixed = ranking_metrics(logits[order], labels[order], NO_INTERVALS)
    for name, metric in ranking_metrics(logits, labels, NO_INTERVALS).items():
        assert mixed[name].value == pytest.approx(metric.value, rel=1e-12)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_predictions_that_are_not_finite_have_no_metrics_and_the_reason_is_the_models(broken: float) -> None:
    logits, labels = torch.tensor([0.5, broken, -1.0, broken]), torch.tensor([1.0, 0.0, 0.0, float("nan")])
    for bootstrap in (NO_INTERVALS, Bootstrap(20)):
        metrics = ranking_metrics(logits, labels, bootstrap)
        assert {metric.value for metric in metrics.values()} == {None}
        assert {metric.reason for metric in metrics.values()} == {"1 of 3 predictions are not finite"}
        assert all(metric.of_model for metric in metrics.values())
    assert calibration_bins(logits, labels) == []
    # The prediction of a user without a label is in no metric.
    finite = ranking_metrics(logits[[0, 2, 3]], labels[[0, 2, 3]], NO_INTERVALS)
    assert finite["auc"].value == 1.0

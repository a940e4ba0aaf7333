"""Retrieval and ranking metrics, exact and weighted, each a sum over users so that resampling is cheap.

Legend: ``N`` users, ``R`` (re)samples of them. Weights are counts: user ``n`` is counted ``counts[r, n]`` times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from unigrf_dist.evaluate.bootstrap import Bootstrap, Statistic
from unigrf_dist.evaluate.metric import CalibrationBin, Metric

HIT_RATE_AT = (1, 10, 50, 200)
NDCG_AT = (10, 50, 200)
RETRIEVAL_METRICS = (*(f"hr@{k}" for k in HIT_RATE_AT), *(f"ndcg@{k}" for k in NDCG_AT), "mrr")
RANKING_METRICS = ("auc", "log_loss", "calibration", "ece")
LESS_IS_BETTER = ("log_loss", "ece")
BEST_AT_ONE = ("calibration",)
_NUM_BINS = 10
NOT_FOUND = 2**62
"""Rank of an item that is no candidate: a miss at every cut, and nothing in the mean of reciprocal ranks."""


def is_better(metric: str, new: float | None, old: float | None) -> bool:
    """Whether ``new`` is a better value of ``metric`` than ``old``: the one place that knows the directions.

    More is better, but for ``LESS_IS_BETTER``, and for ``BEST_AT_ONE``: these are ratios, compared by
    ``|ln(value)|``, so that predicting twice too much and half as much are equally far from right.

    Args:
        metric: one of ``RETRIEVAL_METRICS`` or ``RANKING_METRICS``; a task in brackets changes nothing.
        new: None and NaN are undefined, which is never better.
        old: anything that is defined is better than an undefined one.

    Raises:
        ValueError: there is no such metric.
    """
    name = metric.partition("[")[0]
    if name not in (*RETRIEVAL_METRICS, *RANKING_METRICS):
        raise ValueError(f"no metric {metric!r}; there are {', '.join((*RETRIEVAL_METRICS, *RANKING_METRICS))}")
    if new is None or math.isnan(new):
        return False
    if old is None or math.isnan(old):
        return True
    if name in BEST_AT_ONE:
        return _distance_from_one(new) < _distance_from_one(old)
    return new < old if name in LESS_IS_BETTER else new > old


def _distance_from_one(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf


def rank_from_counts(better: Tensor, equal: Tensor) -> Tensor:
    """The rule for ties: ``rank = 1 + better + ceil(equal / 2)``.

    Of the items with exactly the target's score half stand before it. A model that scores everything alike
    gets the middle of the catalogue and not its top, and no order of ids or ranks can favour a target.
    """
    return 1 + better + (equal + 1) // 2


def retrieval_metrics(ranks: Tensor, bootstrap: Bootstrap) -> dict[str, Metric]:
    """Hit rates, NDCG and MRR of one relevant item per user.

    ``hr@k`` = share of ranks up to k; ``ndcg@k`` = mean of ``1 / log2(1 + rank)`` where the rank is up to k,
    else 0; ``mrr`` = mean of ``1 / rank`` over the full rank.

    Args:
        ranks: ``[N]`` int64, 1 is best.
        bootstrap: how the confidence intervals are made.
    """
    exact = ranks.double()
    gain = 1 / (exact + 1).log2()
    per_user = {f"hr@{k}": (ranks <= k).double() for k in HIT_RATE_AT}
    per_user |= {f"ndcg@{k}": gain * (ranks <= k) for k in NDCG_AT}
    per_user["mrr"] = (1 / exact) * (ranks != NOT_FOUND)
    if ranks.numel() == 0:
        return {name: Metric(None, reason="no users") for name in per_user}
    values = torch.stack(list(per_user.values()), dim=1)
    metrics = bootstrap.metrics(lambda counts: counts @ values / ranks.numel(), ranks.numel())
    return dict(zip(per_user, metrics, strict=True))


def ranking_metrics(logits: Tensor, labels: Tensor, bootstrap: Bootstrap) -> dict[str, Metric]:
    """AUC, log loss and calibration of one prediction per user.

    ``auc`` = share of (positive, negative) pairs in the right order, equal logits counting half; ``log_loss``
    in nats; ``calibration`` = mean predicted / mean observed probability; ``ece`` = expected calibration
    error over the bins of ``calibration_bins``.

    Args:
        logits: ``[N]``.
        labels: ``[N]``, 0 or 1; NaN where there is none: that user is masked here.
        bootstrap: how the confidence intervals are made; it resamples the users that have a label.
    """
    logits, labels = _labelled(logits, labels)
    logits, order = logits.sort(stable=True)
    labels = labels[order]
    if labels.numel() == 0:
        return {name: Metric(None, reason="no labels") for name in RANKING_METRICS}
    if not_finite := int((~logits.isfinite()).sum()):
        reason = f"{not_finite:,} of {logits.numel():,} predictions are not finite"
        return {name: Metric(None, reason=reason, of_model=True) for name in RANKING_METRICS}
    probability = logits.sigmoid()
    losses = F.softplus(logits) - labels * logits
    deviation = F.one_hot(_bin_of(probability), _NUM_BINS).double() * (probability - labels)[:, None]
    auc = auc_statistic(logits, labels)

    def statistic(counts: Tensor) -> Tensor:
        num = counts.sum(1)
        # 0 / 0 and x / 0 both mean: no positive in this sample, no ratio.
        ratio = (counts @ probability / (counts @ labels)).nan_to_num(posinf=torch.nan, nan=torch.nan)
        ece = (counts @ deviation).abs().sum(1) / num
        values = {"auc": auc(counts), "log_loss": counts @ losses / num, "calibration": ratio, "ece": ece}
        return torch.stack([values[name] for name in RANKING_METRICS], dim=1)

    metrics = dict(zip(RANKING_METRICS, bootstrap.metrics(statistic, labels.numel()), strict=True))
    positives = int(labels.sum())
    if positives in (0, labels.numel()):
        kind = "negative" if positives == 0 else "positive"
        metrics["auc"] = Metric(None, reason=f"all {labels.numel()} labels are {kind}")
    if positives == 0:
        metrics["calibration"] = Metric(None, reason="no label is positive")
    return metrics


def calibration_bins(logits: Tensor, labels: Tensor) -> list[CalibrationBin]:
    """Predictions in up to ten bins of equal counts; users without a label are masked.

    Equal counts and not equal widths: rare behaviours would all fall into one bin of equal width. Equal
    predictions share a bin, so that bins are fewer where predictions repeat. No bins of predictions that are not
    finite.
    """
    logits, labels = _labelled(logits, labels)
    if not bool(logits.isfinite().all()):
        return []
    probability = logits.sigmoid()
    bins = _bin_of(probability)
    members = [(probability[bins == b], labels[bins == b]) for b in bins.unique()]
    return [
        CalibrationBin(float(p.min()), float(p.max()), float(p.mean()), float(y.mean()), p.numel())
        for p, y in members
    ]


def _labelled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    valid = ~labels.isnan()
    return logits[valid].double(), labels[valid].double()


def _bin_of(probability: Tensor) -> Tensor:
    if probability.numel() == 0:
        return torch.zeros(0, dtype=torch.int64)
    ordered = probability.sort().values
    cuts = torch.arange(1, _NUM_BINS) * probability.numel() // _NUM_BINS
    return torch.bucketize(probability, ordered[cuts], right=True)


def auc_statistic(logits: Tensor, labels: Tensor) -> Statistic:
    """AUC as a function of counts, NaN where one of the two classes is missing; ``logits`` ascend."""
    _, group, sizes = logits.unique_consecutive(return_inverse=True, return_counts=True)
    positive = labels == 1
    end = sizes.cumsum(0)[group[positive]]
    start = end - sizes[group[positive]]

    def auc(counts: Tensor) -> Tensor:
        # negatives[r, i] = how many negatives stand among the i lowest logits.
        negatives = F.pad((counts * ~positive).cumsum(1), (1, 0))
        positives = counts[:, positive]
        below = (negatives[:, start] + negatives[:, end]) / 2
        return (positives * below).sum(1) / (positives.sum(1) * negatives[:, -1])

    return auc

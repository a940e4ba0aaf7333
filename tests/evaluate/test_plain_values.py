"""What leaves the metrics are plain numbers and booleans, which JSON can hold."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.metrics import calibration_bins, is_better, ranking_metrics, retrieval_metrics

LOGITS, LABELS = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 0.0, 1.0])


def test_bins_and_metrics_go_through_json() -> None:
    bins = calibration_bins(LOGITS, LABELS)
    given = [dataclasses.asdict(each) for each in bins]
    assert json.loads(json.dumps(given)) == given
    for samples in (0, 10):
        metrics = ranking_metrics(LOGITS, LABELS, Bootstrap(samples))
        metrics |= retrieval_metrics(torch.tensor([1, 20]), Bootstrap(samples))
        values = [[metric.value, metric.low, metric.high] for metric in metrics.values()]
        assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(("new", "old", "better"), [(0.5, None, True), (None, 0.5, False), (0.5, 0.4, True)])
def test_a_comparison_is_true_or_false(new: float | None, old: float | None, better: bool) -> None:
    assert is_better("mrr", new, old) is better
    assert is_better("auc[click == 1]", new, old) is better

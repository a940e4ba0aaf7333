"""Which of two values of a metric is the better one: that of the better predictions, whatever the metric."""

from __future__ import annotations

import math

import pytest
import torch

from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.metrics import (
    RANKING_METRICS,
    RETRIEVAL_METRICS,
    is_better,
    ranking_metrics,
    retrieval_metrics,
)

NO_INTERVALS = Bootstrap(samples=0)
LABELS = torch.tensor([0.0, 0, 0, 1, 1, 1, 1, 1])


def values(ranks: list[int], probabilities: list[float]) -> dict[str, float | None]:
    logits = torch.tensor(probabilities, dtype=torch.float64).logit()
    metrics = retrieval_metrics(torch.tensor(ranks), NO_INTERVALS)
    metrics |= ranking_metrics(logits, LABELS, NO_INTERVALS)
    return {name: metric.value for name, metric in metrics.items()}


GOOD = values([1, 1, 2], [0.1] * 3 + [0.9] * 5)
# Ranks beyond every cut; probabilities in the wrong order, and far too low or far too high in the mean.
TOO_LOW = values([300, 400, 500], [0.2] * 3 + [0.1] * 5)
TOO_HIGH = values([300, 400, 500], [0.999] * 3 + [0.99] * 5)


@pytest.mark.parametrize("bad", [TOO_LOW, TOO_HIGH], ids=["too low", "too high"])
@pytest.mark.parametrize("name", [*RETRIEVAL_METRICS, *RANKING_METRICS])
def test_the_value_of_the_better_predictions_wins(name: str, bad: dict[str, float]) -> None:
    assert is_better(name, GOOD[name], bad[name])
    assert not is_better(name, bad[name], GOOD[name])
    assert not is_better(name, GOOD[name], GOOD[name])


@pytest.mark.parametrize("name", [*RETRIEVAL_METRICS, *RANKING_METRICS])
def test_what_is_undefined_never_wins_and_loses_to_whatever_is_defined(name: str) -> None:
    for undefined in (None, math.nan):
        assert not is_better(name, undefined, 0.5)
        assert not is_better(name, undefined, None)
        assert is_better(name, 0.5, undefined)


def test_calibration_is_as_far_off_at_half_as_at_twice() -> None:
    assert not is_better("calibration", 2.0, 0.5)
    assert not is_better("calibration", 0.5, 2.0)
    assert is_better("calibration", 1.6, 0.6)  # 1 / 1.6 = 0.625
    assert is_better("calibration", 5.0, 0.0)


def test_a_task_in_brackets_does_not_change_the_direction() -> None:
    assert is_better("ece[click == 1]", 0.1, 0.2)
    assert is_better("auc[click == 1]", 0.2, 0.1)


def test_a_name_that_is_no_metric_is_an_error() -> None:
    with pytest.raises(ValueError, match="no metric 'ndgc@10'; there are hr@1, "):
        is_better("ndgc@10", 0.1, 0.2)

"""Which validation a run keeps as its best, for every metric that can be named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.train.small_run import small_config
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.metric import Metric, MetricTable
from unigrf_dist.evaluate.metrics import (
    RANKING_METRICS,
    RETRIEVAL_METRICS,
    ranking_metrics,
    retrieval_metrics,
)
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.selection import Selection

CLICK, LIKE = "click == 1", "like == 1"
LABELS = torch.tensor([0.0, 1.0, 1.0, 1.0])


def validation(quality: float, other: float | None = None) -> MetricTable:
    """Metrics of a model whose ranks and logits are the better, the greater ``quality`` is (0 to 1)."""
    none = Bootstrap(samples=0)

    def ranking(of_task: float) -> dict[str, Metric]:
        return ranking_metrics((LABELS - 0.5) * 8 * (of_task - 0.4), LABELS, none)

    ranks = torch.tensor([1, 2, 3]) if quality > 0.5 else torch.tensor([500, 600, 700])
    tasks = {CLICK: ranking(quality)} if other is None else {CLICK: ranking(quality), LIKE: ranking(other)}
    return MetricTable(retrieval_metrics(ranks, none), tasks)


def selection(metric: str, *rules: str, patience: int | None = None) -> Selection:
    tasks = [{"rule": rule} for rule in rules or (CLICK,)]
    selected: dict[str, Any] = {"metric": metric, "patience": patience}
    return Selection(small_config(objective__ranking=tasks, train__selection=selected))


def best_epoch(chosen: Selection, validations: list[MetricTable]) -> int:
    state = TrainState()
    for epoch, table in enumerate(validations, start=1):
        state.epoch = epoch
        chosen.note(state, table)
    return state.best["epoch"]


@pytest.mark.parametrize("metric", [*RETRIEVAL_METRICS, *RANKING_METRICS])
def test_the_best_model_is_kept_by_any_metric(metric: str) -> None:
    assert best_epoch(selection(metric), [validation(q) for q in (0.2, 0.9, 0.1)]) == 2


@pytest.mark.parametrize(("metric", "epoch"), [("auc", 1), ("auc[click == 1]", 1), ("auc[like==1]", 2)])
def test_with_several_tasks_the_named_one_counts_and_else_the_first(metric: str, epoch: int) -> None:
    assert best_epoch(selection(metric, CLICK, LIKE), [validation(0.9, 0.1), validation(0.1, 0.9)]) == epoch


def test_the_best_validation_is_remembered_by_metric_value_step_and_epoch() -> None:
    state = TrainState(step=40, epoch=3)
    assert selection("auc[like == 1]", CLICK, LIKE).note(state, validation(0.1, 0.9))
    assert state.best == {"metric": "auc[like == 1]", "value": 1.0, "step": 40, "epoch": 3}


def test_an_undefined_value_is_no_gain_and_training_goes_on() -> None:
    diverged = MetricTable({"mrr": Metric(0.1)}, {CLICK: ranking_metrics(LABELS / 0, LABELS, Bootstrap(0))})
    chosen, state = selection("auc", patience=2), TrainState()
    assert not chosen.note(state, diverged)
    assert chosen.note(state, validation(0.9))
    assert not chosen.note(state, diverged)
    assert not chosen.exhausted(state)
    assert not chosen.note(state, diverged)
    assert chosen.exhausted(state)
    assert state.best["value"] == 1.0


def test_a_metric_that_the_validation_events_can_not_define_is_an_error_that_lists_the_others() -> None:
    positives = ranking_metrics(torch.tensor([0.1, 0.2]), torch.tensor([1.0, 1.0]), Bootstrap(samples=0))
    table = MetricTable({"mrr": Metric(0.1)}, {CLICK: positives})
    with pytest.raises(UserError, match=r"all 2 labels are positive; there are: mrr, log_loss, calibration, ece$"):
        selection("auc").note(TrainState(), table)


def test_values_of_two_metrics_are_not_compared_when_a_run_goes_on_with_another() -> None:
    state = TrainState()
    selection("auc").note(state, validation(0.9))
    assert selection("mrr").note(state, validation(0.2))
    assert state.best["metric"] == "mrr"


@pytest.mark.parametrize("metric", ["auc[rating >= 4]", "ndcg@7"])
def test_an_unknown_metric_is_refused_before_training(metric: str) -> None:
    with pytest.raises(UserError, match=r"train\.selection\.metric is .*allowed: .*auc\[like == 1\]"):
        selection(metric, CLICK, LIKE)

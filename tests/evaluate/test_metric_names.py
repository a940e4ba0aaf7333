"""Metrics of one of several ranking tasks, as a configuration names them and as a run shows them."""

from __future__ import annotations

import pytest

from unigrf_dist.evaluate.metric_names import named_metrics, read_metric_name

TASKS = ["click == 1", "rating >= 3.5"]


@pytest.mark.parametrize(
    ("text", "metric", "task"),
    [
        ("ndcg@10", "ndcg@10", None),
        ("auc", "auc", "click == 1"),
        ("auc[rating >= 3.5]", "auc", "rating >= 3.5"),
        (" log_loss [ rating>=3.50 ] ", "log_loss", "rating >= 3.5"),
        ("ece[click==1.0]", "ece", "click == 1"),
    ],
)
def test_a_name_stands_for_a_metric_of_one_task_however_it_is_spaced(
    text: str, metric: str, task: str | None
) -> None:
    name = read_metric_name(text, TASKS)
    assert (name.metric, name.task) == (metric, task)


@pytest.mark.parametrize(
    "text",
    ["", "foo", "auc[like == 1]", "auc[click]", "auc[]", "auc[click == 1", "ndcg@10[click == 1]", "auc auc"],
)
def test_an_unknown_name_is_refused_with_all_that_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed: hr@1, .*, mrr, auc, .*, ece; ") as caught:
        read_metric_name(text, TASKS)
    assert str(caught.value).endswith("the last 4 of one task as auc[click == 1], auc[rating >= 3.5]")


def test_the_first_task_is_said_where_several_could_be_meant() -> None:
    assert read_metric_name("auc", TASKS).described == "auc of the first task, click == 1"
    assert read_metric_name("auc[click==1]", TASKS).described == "auc[click == 1]"
    assert read_metric_name("ndcg@10", TASKS).described == "ndcg@10"
    for text in ("auc", "auc[click==1]"):
        assert read_metric_name(text, TASKS[:1]).described == str(read_metric_name(text, TASKS[:1])) == "auc"


def test_metrics_side_by_side_have_the_names_that_a_configuration_uses() -> None:
    of_task = {"auc": 0.7, "ece": None}
    table = {"retrieval": {"mrr": 0.1}, "ranking": dict.fromkeys(TASKS, of_task)}
    named = named_metrics(table)
    assert len(named) == 5
    assert named[str(read_metric_name("auc", TASKS))] == 0.7
    assert named["ece[rating >= 3.5]"] is None
    one = {"retrieval": {"mrr": 0.1}, "ranking": {"click == 1": of_task}}
    assert named_metrics(one) == {"mrr": 0.1, **of_task}

"""Names of metrics in a study: which there are, whose they are, and which way is better."""

from __future__ import annotations

import pytest

from unigrf_dist.study.metric_names import by_name, is_less_better, is_of_first_task, metric_of_study


def test_a_rule_is_written_in_one_way() -> None:
    assert metric_of_study("auc[ click==1 ]") == "auc[click == 1]"
    assert metric_of_study("auc") == "auc"
    assert metric_of_study("hr@10") == "hr@10"


@pytest.mark.parametrize("text", ["hr@7", "calibration", "ndcg@10[click == 1]", "auc[click == 1", "auc[]"])
def test_what_is_no_metric_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no such metric|no task rule"):
        metric_of_study(text)


def test_less_is_better_for_losses_of_any_task() -> None:
    assert [is_less_better(name) for name in ("log_loss", "ece[like == 1]", "auc[like == 1]", "mrr")] == [
        True, True, False, False
    ]  # fmt: skip


def test_only_a_ranking_metric_without_a_rule_is_of_the_first_task() -> None:
    assert [is_of_first_task(name) for name in ("auc", "auc[like == 1]", "mrr")] == [True, False, False]


def test_metrics_without_a_rule_are_those_of_the_first_task() -> None:
    table = {
        "retrieval": {"hr@10": 0.3, "mrr": 0.1},
        "ranking": {
            "click == 1": {"auc": 0.7, "log_loss": 0.5, "calibration": 1.1},
            "like == 1": {"auc": None, "log_loss": 0.4, "calibration": 0.9},
        },
    }
    assert by_name(table) == {
        "hr@10": 0.3,
        "mrr": 0.1,
        "auc": 0.7,
        "log_loss": 0.5,
        "auc[click == 1]": 0.7,
        "log_loss[click == 1]": 0.5,
        "auc[like == 1]": None,
        "log_loss[like == 1]": 0.4,
    }

"""The table shown after an evaluation."""

from __future__ import annotations

import io

from rich.console import Console

from unigrf_dist.evaluate.evaluator import EvaluationResult
from unigrf_dist.evaluate.metric import Metric, MetricTable
from unigrf_dist.evaluate.table import opponents_table, result_table


def metric_table(value: float) -> MetricTable:
    auc = {"auc": Metric(None, reason="all 3 labels are positive"), "log_loss": Metric(value, value, value)}
    return MetricTable({"hr@10": Metric(value, value - 0.01, value + 0.02)}, {"rating >= 4": auc})


def shown(result: EvaluationResult) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(result_table(result))
    return console.file.getvalue().splitlines()


def words(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def result(**changes: object) -> EvaluationResult:
    values = {
        "split": "test",
        "num_users": 6040,
        "protocol": {"candidates": 3706, "seen_items": "seen removed", "confidence_level": 0.95},
        "model": metric_table(0.3),
        "baselines": {"popularity": metric_table(0.1), "most_recent": metric_table(0.05)},
        "planted_optimum": {"retrieval": {"hr@10": 0.42}, "ranking": {"rating >= 4": {"auc": 0.8}}},
    }
    return EvaluationResult(**{**values, **changes})


def test_model_interval_baselines_and_optimum_stand_side_by_side_in_80_columns() -> None:
    (row,) = [line for line in shown(result()) if "hr@10" in line]
    assert row.split() == ["hr@10", "0.3000", "0.2900–0.3200", "0.1000", "0.0500", "0.4200"]


def test_the_table_says_how_it_was_measured() -> None:
    text = words(shown(result(protocol={"candidates": 3706, "seen_items": "x", "query_time_visible": False})))
    assert "test: 6,040 users" in text
    assert "3,706 items" in text
    assert "time of the query not visible" in text


def test_an_undefined_metric_keeps_its_columns_and_says_why() -> None:
    (row,) = [line for line in shown(result()) if line.split()[:1] == ["auc"]]
    assert row.split() == ["auc", "–", "–", "–", "–", "0.8000"]
    assert "no auc of rating >= 4: all 3 labels are positive" in words(shown(result()))


def test_without_comparisons_only_the_model_is_shown() -> None:
    lines = shown(result(baselines={}, planted_optimum=None))
    assert not any("popularity" in line or "best possible" in line for line in lines)


def test_the_whole_table_as_it_is_read() -> None:
    assert [line.rstrip() for line in shown(result())] == [
        "                            test: 6,040 users",
        "",
        "                                                        most       best",
        "  metric         model    95% interval   popularity   recent   possible",
        " ───────────────────────────────────────────────────────────────────────",
        "  retrieval",
        "    hr@10       0.3000   0.2900–0.3200       0.1000   0.0500     0.4200",
        "",
        "  rating >= 4",
        "    auc              –               –            –        –     0.8000",
        "    log_loss    0.3000   0.3000–0.3000       0.1000   0.0500          –",
        "",
        "all 3,706 items are candidates, seen removed; no auc of rating >= 4: all",
        "                          3 labels are positive",
    ]


def test_the_models_own_table_is_as_narrow_as_its_numbers() -> None:
    alone = result(baselines={}, planted_optimum=None, protocol={"candidates": 3, "seen_items": "x"})
    assert [line.rstrip() for line in shown(alone)][2:10] == [
        "  metric         model",
        " ──────────────────────",
        "  retrieval",
        "    hr@10       0.3000",
        "",
        "  rating >= 4",
        "    auc              –",
        "    log_loss    0.3000",
    ]


def test_opponents_stand_in_a_second_table_that_says_who_is_above_the_model() -> None:
    opponents = {
        "transition_knn": MetricTable({"hr@10": Metric(0.35)}, {}),
        "label_regression": MetricTable({}, {"rating >= 4": {"log_loss": Metric(0.4)}}),
    }
    several = result(
        baselines={"popularity": metric_table(0.1), **opponents},
        settings={"transition_knn": "10 gaps"},
        skipped={"ease": "9,000 items, more than 8,000"},
    )
    assert not any("kNN" in line for line in shown(several))
    console = Console(file=io.StringIO(), width=80)
    console.print(opponents_table(several))
    lines = console.file.getvalue().splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()[:1] in (["hr@10"], ["log_loss"])}
    assert rows == {"hr@10": ["0.3000", "0.3500", "–"], "log_loss": ["0.3000", "–", "0.4000"]}
    text = words(lines)
    assert "the model is below transition kNN in hr@10" in text
    assert "no EASE: 9,000 items, more than 8,000" in text
    assert "transition kNN: 10 gaps" in text
    assert opponents_table(result()) is None

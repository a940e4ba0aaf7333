"""``metrics.json`` and the planted optimum: what is written is read, and what is strange is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.evaluations import evaluated
from tests.evaluate.small_data import TASKS, drawn_users, write_users
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.evaluator import EvaluationResult
from unigrf_dist.evaluate.metric import CalibrationBin, Metric, MetricTable
from unigrf_dist.evaluate.metrics_file import read_metrics, write_metrics
from unigrf_dist.evaluate.planted import read_planted_optimum

USERS = drawn_users(20, seed=4)
BINS = {"click == 1": [CalibrationBin(0.0, 0.5, 0.25, 0.125, 8), CalibrationBin(0.5, 1.0, 0.75, 1.0, 3)]}
UNDEFINED = Metric(None, reason="all 3 labels are positive")


def result(**changes: Any) -> EvaluationResult:
    values = {
        "split": "test",
        "num_users": 3,
        "protocol": {"candidates": 9, "confidence_level": None},
        "model": MetricTable(
            {"hr@10": Metric(0.5, 0.25, 0.75), "mrr": Metric(0.125)},
            {"click == 1": {"auc": UNDEFINED, "log_loss": Metric(0.5)}},
            BINS,
        ),
        "baselines": {"popularity": MetricTable({"hr@10": Metric(0.25)}, {"click == 1": {}})},
        "planted_optimum": {"retrieval": {"hr@10": 1.0}, "ranking": {}},
        "settings": {"item_knn": "50 nearest"},
        "skipped": {"ease": "too many items"},
    }
    return EvaluationResult(**{**values, **changes})


def metric(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


def test_the_file_holds_every_value_of_a_result(tmp_path: Path) -> None:
    file = write_metrics(tmp_path, result(), checkpoint="best", step=7, data=Path("sets/ml"))
    assert file == tmp_path / "metrics.json"
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "schema": 1,
        "splits": {
            "test": {
                "checkpoint": "best",
                "step": 7,
                "data": "sets/ml",
                "num_users": 3,
                "protocol": {"candidates": 9, "confidence_level": None},
                "model": {
                    "retrieval": {"hr@10": metric(0.5, 0.25, 0.75), "mrr": metric(0.125)},
                    "ranking": {
                        "click == 1": {
                            "auc": {**metric(None), "reason": "all 3 labels are positive"},
                            "log_loss": metric(0.5),
                        }
                    },
                },
                "baselines": {"popularity": {"retrieval": {"hr@10": metric(0.25)}, "ranking": {"click == 1": {}}}},
                "opponents": {"settings": {"item_knn": "50 nearest"}, "skipped": {"ease": "too many items"}},
                "planted_optimum": {"retrieval": {"hr@10": 1.0}, "ranking": {}},
                "calibration_bins": {
                    "click == 1": [
                        {"low": 0.0, "high": 0.5, "mean_predicted": 0.25, "observed": 0.125, "count": 8},
                        {"low": 0.5, "high": 1.0, "mean_predicted": 0.75, "observed": 1.0, "count": 3},
                    ]
                },
            }
        },
    }
    assert list(tmp_path.iterdir()) == [file]


def test_a_split_evaluated_again_replaces_its_own_metrics_alone(tmp_path: Path) -> None:
    for split, step in (("validation", 1), ("test", 2), ("test", 3)):
        write_metrics(tmp_path, result(split=split), checkpoint="best", step=step, data=tmp_path)
    assert {split: record["step"] for split, record in read_metrics(tmp_path).items()} == {
        "validation": 1,
        "test": 3,
    }


def test_nothing_evaluated_has_no_records_and_nan_is_never_written(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}
    table = MetricTable({"mrr": Metric(float("nan"))}, {})
    with pytest.raises(ValueError, match="JSON"):
        write_metrics(tmp_path, result(model=table), checkpoint="best", step=1, data=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_metrics_as_plain_values_leave_intervals_out() -> None:
    assert result().metrics() == {
        "retrieval": {"hr@10": 0.5, "mrr": 0.125},
        "ranking": {"click == 1": {"auc": None, "log_loss": 0.5}},
    }


def test_the_optimum_of_a_split_is_read_and_data_may_have_none(tmp_path: Path) -> None:
    assert read_planted_optimum(tmp_path, "test") is None
    optimum = {"retrieval": {"mrr": 0.5}, "ranking": {"click == 1": {"auc": 0.75}}}
    (tmp_path / "planted.json").write_text(json.dumps({"test": {**optimum, "more": 1}}), encoding="utf-8")
    assert read_planted_optimum(tmp_path, "test") == optimum
    with pytest.raises(UserError, match=r"planted\.json: no planted optimum of split validation"):
        read_planted_optimum(tmp_path, "validation")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"test": {"retrieval": {}}}', '{"test": {"retrieval": 1, "ranking": {}}}']
)
def test_a_strange_optimum_is_told_of(text: str, tmp_path: Path) -> None:
    (tmp_path / "planted.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="synthesize the data again"):
        read_planted_optimum(tmp_path, "test")


def test_metrics_of_both_splits_stand_in_one_file(tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    run = tmp_path / "run"
    run.mkdir()
    for split, step in (("validation", 7), ("test", 9)):
        write_metrics(run, evaluated(tmp_path / "data", split=split), checkpoint="best", step=step, data=tmp_path)
    stored = read_metrics(run)
    assert [stored[split]["step"] for split in ("validation", "test")] == [7, 9]
    assert json.loads((run / "metrics.json").read_text())["schema"] == 1
    assert [path.name for path in run.iterdir()] == ["metrics.json"]
    test, model = stored["test"], evaluated(tmp_path / "data").model
    assert test["model"]["retrieval"]["mrr"] == {
        "value": model.retrieval["mrr"].value,
        "low": model.retrieval["mrr"].low,
        "high": model.retrieval["mrr"].high,
    }
    assert set(test["baselines"]) == set(evaluated(tmp_path / "data").baselines)
    assert test["planted_optimum"] is None
    assert test["calibration_bins"][TASKS[0]][0].keys() == {"low", "high", "mean_predicted", "observed", "count"}


@pytest.mark.parametrize("text", ['{"schema": 2, "splits": {}}', "[]", "{", '{"schema": 1}'])
def test_a_strange_metrics_file_is_neither_read_nor_replaced(text: str, tmp_path: Path) -> None:
    data = write_users(tmp_path / "data", USERS)
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json: no metrics of this version"):
        write_metrics(tmp_path, evaluated(data.path), checkpoint="best", step=1, data=tmp_path)
    assert (tmp_path / "metrics.json").read_text() == text


def test_a_run_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    data = write_users(tmp_path / "data", USERS)
    with pytest.raises(UserError, match=r"metrics\.json: the metrics can't be written"):
        write_metrics(tmp_path / "nowhere", evaluated(data.path), checkpoint="best", step=1, data=tmp_path)

"""What a run's log and terminal say, from a pretended run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from unigrf_dist.evaluate.metric_names import read_metric_name
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.step import StepOutcome
from unigrf_dist.train.telemetry import Reporter

TASKS = ["click == 1", "like == 1"]
BEST = {"metric": "auc[click == 1]", "value": 0.7512, "step": 8, "epoch": 2}


def reporter(run: Path, metric: str = "auc", tasks: list[str] = TASKS, *, active: bool = True) -> Reporter:
    return Reporter(run, total_steps=20, done_steps=0, selection=read_metric_name(metric, tasks), active=active)


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def outcome() -> StepOutcome:
    """Values that tell their places apart."""
    return StepOutcome(
        loss=torch.tensor(1.0),
        losses=torch.tensor([2.0, 3.0]),
        weights=torch.tensor([4.0, 5.0]),
        grad_norms=torch.tensor([6.0, 7.0]),
        exact_norms=torch.tensor([8.0, 9.0]),
        enhancer_counts=torch.tensor([10.0, 11.0]),
        num_events=torch.tensor(12.0),
        signals=torch.zeros(4),
        local_sums=torch.zeros(2),
    )


def validated(auc: float | None) -> dict:
    ranking = {"auc": auc, "log_loss": 0.5}
    return {"retrieval": {"hr@10": 0.3, "ndcg@10": 0.2, "mrr": 0.1}, "ranking": dict.fromkeys(TASKS, ranking)}


def test_the_numbers_of_a_step_are_logged_under_the_names_of_their_tasks(tmp_path: Path) -> None:
    run = reporter(tmp_path)
    run.step(5, 1, outcome(), learning_rate=0.01, events=100.0)
    run.exact_norms(5, 1, outcome())
    run.close()
    step, exact = records(tmp_path)
    expected = {
        "loss": 1,
        "loss_retrieval": 2,
        "loss_ranking": 3,
        "weight_retrieval": 4,
        "weight_ranking": 5,
        "grad_norm_retrieval": 6,
        "grad_norm_ranking": 7,
        "hard_negatives": 10,
        "soft_positives": 11,
        "lr": 0.01,
    }
    assert step.items() >= {"kind": "step", "step": 5, "epoch": 1, **expected}.items()
    assert {name: exact[name] for name in ("estimate_retrieval", "exact_retrieval", "exact_ranking")} == {
        "estimate_retrieval": 6,
        "exact_retrieval": 8,
        "exact_ranking": 9,
    }


def test_the_terminal_shows_the_tasks_that_are_trained(tmp_path: Path) -> None:
    for tasks, expected in (
        (("retrieval", "ranking"), "loss 1.000  retrieval 2.000 ×4.00  ranking 3.000 ×5.00  "),
        (("retrieval",), "loss 1.000  retrieval 2.000 ×4.00  "),
    ):
        run = Reporter(
            tmp_path,
            total_steps=20,
            done_steps=0,
            selection=read_metric_name("auc", TASKS),
            active=True,
            tasks=tasks,
        )
        run.step(5, 1, outcome(), learning_rate=0.01, events=100.0)
        assert re.fullmatch(re.escape(expected) + r"[\d,]+ events/s", run._metrics.plain)
        run.close()


def test_with_several_tasks_a_validation_names_the_task_of_each_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = reporter(tmp_path)
    run.header(epoch=0, ranks=2)
    run.validation(4, 1, validated(0.7512), best=True)
    run.validation(8, 2, validated(None), best=False)
    run.close()
    said = " ".join(capsys.readouterr().out.split())
    assert "best model by auc of the first task, click == 1" in said
    assert "auc[click == 1] 0.7512 auc[like == 1] 0.7512 best so far" in said
    assert "auc[click == 1] undefined" in said
    assert "log_loss" not in said


def test_without_validation_the_last_step_is_said_to_be_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = reporter(tmp_path)
    run.header(epoch=0, validates=False, ranks=2)
    run.close()
    said = " ".join(capsys.readouterr().out.split())
    assert "no validation: the model of the last step is the best" in said
    assert "best model by" not in said


def test_the_metric_that_picks_the_model_is_always_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = reporter(tmp_path, "log_loss[like==1]")
    run.validation(4, 1, validated(0.7), best=True)
    run.close()
    said = " ".join(capsys.readouterr().out.split())
    assert "log_loss[like == 1] 0.5000" in said
    assert "log_loss[click == 1]" not in said


def test_lines_of_a_validation_break_between_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = reporter(tmp_path)
    run.validation(4, 1, validated(0.7512), best=True)
    run.close()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("auc[like == 1] 0.7512" in line for line in lines) == 1


def test_a_finished_run_says_so_with_its_best_epoch_and_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / f"a run with spaces{'-' * 60}"
    folder.mkdir()
    run = reporter(folder)
    run.header(epoch=0, ranks=2)
    run.step(15, 3, outcome(), learning_rate=0.01, events=100.0)
    run.finished(TrainState(step=20, epoch=4, best=BEST))
    run.close()
    said = capsys.readouterr().out
    assert "20/20" in said
    assert "finished after epoch 4, step 20\n" in said
    assert "best epoch 2:  auc[click == 1] 0.7512\n" in said
    assert f"unigrf evaluate --run '{folder}' --split test\n" in said
    assert records(folder)[-1] == {"kind": "finished", "step": 20, "epoch": 4, "best": BEST}


def test_a_run_that_ends_early_says_why_and_its_bar_counts_the_steps_that_were_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = reporter(tmp_path)
    run.header(epoch=0, ranks=2)
    run.finished(TrainState(step=12, epoch=3, best=BEST), "no better auc in 1 validation(s)")
    run.close()
    said = capsys.readouterr().out
    assert "12/12" in said
    assert "finished after epoch 3, step 12: no better auc in 1 validation(s)" in said


def test_a_run_that_was_asked_to_stop_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = reporter(tmp_path)
    run.header(epoch=0, ranks=2)
    run.stopped(TrainState(step=12, epoch=2))
    run.close()
    said = capsys.readouterr().out
    assert "12/20" in said
    assert "saved after step 12; continue with --resume" in said
    assert [record["kind"] for record in records(tmp_path)] == ["header"]


def test_other_ranks_say_and_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = reporter(tmp_path, active=False)
    run.header(epoch=0, ranks=2)
    run.step(5, 1, outcome(), learning_rate=0.01, events=100.0)
    run.validation(5, 1, validated(0.7), best=True)
    run.finished(TrainState(step=5, epoch=1, best=BEST))
    run.close()
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []

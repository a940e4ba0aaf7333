"""An ablation from its file to its tables; the runs are pretended (``pretend.py``)."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import ABLATION, ROOT, changed
from unigrf_dist.errors import UserError
from unigrf_dist.study.plan import plan_trials
from unigrf_dist.study.schema import read_ablation

Study = Callable[..., Any]


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "results.json").read_text())


SHIPPED = sorted((ROOT / "configs").rglob("ablation*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_shipped_ablation_differs_from_its_base_in_every_variant(path: Path) -> None:
    study = read_ablation(path)
    assert path.read_text().startswith("# unigrf ablate")
    from unigrf_dist.config import load_config
    from unigrf_dist.study.schema import as_words

    base = path.parent / study.base
    configs = [
        load_config(base, as_words({**study.overrides, **variant.overrides}))
        for variant in study.variants.values()
    ]
    assert all(a != b for i, a in enumerate(configs) for b in configs[:i])


def test_three_ablations_are_shipped() -> None:
    assert len(SHIPPED) == 3


def test_the_grid_is_every_variant_with_every_seed_and_the_first_seed_comes_first(
    study: Study, folder: Path
) -> None:
    (folder / "study.yaml").write_text(json.dumps(ABLATION))
    trials = plan_trials(read_ablation(folder / "study.yaml"), folder / "study.yaml", folder / "out")
    assert [(trial.variant, trial.seed) for trial in trials] == [
        (name, seed) for seed in (1, 2) for name in ("naive", "retrieval_only", "wide")
    ]
    assert trials[-1].folder == folder / "out" / "runs" / "wide" / "seed-2"
    assert (trials[-1].config.model.width, trials[-1].config.train.seed) == (32, 2)
    assert trials[0].config.model.width == 16


def test_a_value_set_for_all_gives_way_to_a_variant_s_own(folder: Path) -> None:
    (folder / "study.yaml").write_text(json.dumps(changed(overrides={"train.epochs": 5, "model.blocks": 3})))
    study = read_ablation(folder / "study.yaml")
    trials = plan_trials(study, folder / "study.yaml", folder, overrides=["train.epochs=7", "model.width=8"])
    assert [t.config.model.width for t in trials[:3]] == [8, 8, 32]
    assert {(t.config.train.epochs, t.config.model.blocks) for t in trials} == {(7, 3)}


def test_metrics_of_every_ranking_task_are_tabulated(
    study: Study, folder: Path, pretend: Callable[..., None]
) -> None:
    values = changed(metrics=["auc", "auc[rating>=5]", "log_loss[rating >= 5]"])
    both = {"objective.ranking": [{"rule": "rating >= 4"}, {"rule": "rating >= 5"}]}
    values["variants"] = {"naive": {"overrides": both}, "one": {}}
    done = study("--seeds", "1", values=values)
    assert done.exit_code == 0, done.output
    naive = results(folder)["variants"]["naive"]["metrics"]
    # The pretended AUC of the second task is 0.1 above that of the first.
    assert naive["auc[rating >= 5]"]["mean"] - naive["auc"]["mean"] == pytest.approx(0.1)
    assert list(results(folder)["variants"]["one"]["metrics"]) == ["auc"]
    text = (folder / "out" / "results.md").read_text()
    assert "AUC [rating >= 5] | log loss [rating >= 5] ↓" in text
    assert "Ranking metrics without a rule: of the first task, rating >= 4." in text
    assert "[rating >= 5]" in done.output
    run = results(folder)["runs"][0]
    assert run["validation"]["log_loss[rating >= 5]"] == 0.5
    drawing = "".join(ElementTree.parse(folder / "out" / "results.svg").getroot().itertext())
    assert "[rating >= 5]" in drawing


def test_a_whole_study_writes_metrics_tables_and_drawing(
    study: Study, folder: Path, pretend: Callable[..., None]
) -> None:
    done = study("--parallel", "3")
    assert done.exit_code == 0, done.output
    found = results(folder)
    assert len(found["runs"]) == 6
    assert found["missing"] == found["failed"] == []
    naive = found["variants"]["naive"]["metrics"]["hr@10"]
    assert (naive["seeds"], naive["interval"]) == (2, "Student's t over seeds")
    # The pretended seeds lie 0.001 apart: t(1) = 12.706, deviation 0.001 / sqrt(2), half-width 12.706 * 0.0005.
    assert naive["half_width"] == pytest.approx(0.006353, rel=1e-3)
    assert abs(found["variants"]["wide"]["metrics"]["hr@10"]["difference"]["half_width"]) < 1e-9
    assert "auc" not in found["variants"]["retrieval_only"]["metrics"]
    run = found["runs"][0]
    assert (run["best_epoch"], run["dense_parameters"], run["table_parameters"]) == (2, 256, 120 * 16)
    assert run["train_seconds"] > 0
    assert run["validation"]["auc"] == 0.6
    text = (folder / "out" / "results.md").read_text()
    assert "## Difference to naive" in text
    assert "±0.0064" in text
    drawing = ElementTree.parse(folder / "out" / "results.svg").getroot()
    assert drawing.tag.endswith("svg")
    words = "".join(drawing.itertext())
    assert "retrieval_only" in words
    assert "wide" in words
    assert (folder / "out" / "results.png").read_bytes().startswith(b"\x89PNG")


def test_with_one_seed_the_interval_is_over_users_and_says_so(
    study: Study, folder: Path, pretend: Callable[..., None]
) -> None:
    done = study("--seeds", "1", "--only", "naive,wide")
    assert done.exit_code == 0
    assert "bootstrapped over users" in " ".join(done.output.split())
    metric = results(folder)["variants"]["wide"]["metrics"]["hr@10"]
    assert metric["interval"] == "bootstrap over users of one run"
    assert metric["high"] - metric["low"] == pytest.approx(0.02)
    assert metric["difference"]["verdict"] == "one seed"


def test_a_finished_study_runs_nothing_again(study: Study, folder: Path, pretend: Callable[..., None]) -> None:
    study("--only", "naive")
    log = folder / "out" / "runs" / "naive" / "seed-1" / "study.log"
    before = log.stat().st_mtime_ns
    done = study("--only", "naive")
    assert done.exit_code == 0
    assert "2 runs, 2 of them done before" in done.output
    assert log.stat().st_mtime_ns == before


def test_a_failed_run_is_reported_with_its_log_while_the_others_go_on(
    study: Study, folder: Path, pretend: Callable[..., None]
) -> None:
    pretend(fail=["retrieval_only"])
    done = study("--seeds", "1")
    assert done.exit_code == 1
    log = folder / "out" / "runs" / "retrieval_only" / "seed-1" / "study.log"
    assert "retrieval_only seed 1: the planted failure" in done.output
    assert str(log) in done.output.replace("\n", "")
    found = results(folder)
    assert [run["variant"] for run in found["runs"]] == ["naive", "wide"]
    assert found["failed"] == [{"run": "retrieval_only seed 1", "reason": "the planted failure", "log": str(log)}]
    pretend()
    assert study("--seeds", "1").exit_code == 0
    assert log.read_text().count("$ ") == 3  # two trainings and an evaluation


def test_a_changed_configuration_is_refused_with_the_key_and_the_way_out(
    study: Study, folder: Path, pretend: Callable[..., None]
) -> None:
    study("--seeds", "1", "--only", "naive")
    done = study("--seeds", "1", "--only", "naive,wide", "--set", "model.dropout=0.3")
    assert isinstance(done.exception, UserError)
    message = str(done.exception)
    assert "naive/seed-1: was run with model.dropout = 0.1, now 0.3" in message
    assert "remove these folders" in message
    assert not (folder / "out" / "runs" / "wide").exists()


def test_ctrl_c_stops_the_running_training_and_the_same_command_resumes_it(
    study: Study, folder: Path, pretend: Callable[..., None]
) -> None:
    pretend(slow=["naive"])
    run = folder / "out" / "runs" / "naive" / "seed-1"

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not (run / "slow").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    stopped = study("--seeds", "1", "--only", "naive,wide")
    thread.join()
    assert stopped.exit_code == 130
    assert "2 runs are not finished; the same command goes on with them" in stopped.output
    assert (run / "checkpoints" / "latest").read_text() == "step-00000002"
    first = json.loads((run / "study.json").read_text())
    assert first["trained"] is False
    done = study("--seeds", "1", "--only", "naive,wide")
    assert done.exit_code == 0, done.output
    assert "--resume" in (run / "study.log").read_text()
    assert json.loads((run / "study.json").read_text())["train_seconds"] > first["train_seconds"]
    assert len(results(folder)["runs"]) == 2

"""The whole street on a tiny planted data set: synthesize, train, stop, resume, evaluate, report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.train.stored import latest, stored_state, stored_values
from unigrf_dist.cli import main

REPOSITORY = Path(__file__).parents[1]
UNIGRF = [sys.executable, "-m", "unigrf_dist"]
SMALL = {
    "model": {"width": 16, "blocks": 1, "heads": 1, "head_width": 16, "dropout": 0.1},
    "data": {"max_events": 20},
    "objective": {
        "ranking": [{"rule": "rating >= 4"}],
        "weighter": {"strategy": "gradient", "warmup_steps": 4, "exact_every_steps": 3},
        "enhancer": {
            "candidates": 4,
            "hard_negatives": 2,
            "soft_positives": 1,
            "threshold": 0.5,
            "warmup_epochs": 1,
        },
    },
    "train": {"epochs": 4, "global_batch_users": 64, "log_every_steps": 2, "selection": {"every": "2 epochs"}},
    "evaluate": {"bootstrap_samples": 50},
    "deepspeed": {
        "zero_optimization": {"stage": 2},
        "optimizer": {"type": "AdamW", "params": {"lr": 3e-3}},
    },
}


def unigrf(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UNIGRF, *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file over a planted data set."""
    folder = tmp_path_factory.mktemp("street")
    made = unigrf("synthesize", "--out", folder / "data", "--users", 300, "--items", 120, "--mean-length", 14)
    assert made.returncode == 0, made.stderr
    values = {**SMALL, "data": {**SMALL["data"], "path": str(folder / "data")}}  # type: ignore[dict-item]
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    return folder / "small.yaml"


@pytest.fixture(scope="module")
def run(config: Path) -> Path:
    """A run of two ranks under the deepspeed launcher."""
    folder = config.parent / "run"
    done = unigrf("train", "--config", config, "--run", folder, "--ranks", 2)
    assert done.returncode == 0, done.stderr
    return folder


def records(run: Path, kind: str) -> list[dict]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def test_training_lowers_both_losses_and_logs_them(run: Path) -> None:
    steps = records(run, "step")
    assert steps[-1]["loss_retrieval"] < steps[0]["loss_retrieval"]
    assert steps[-1]["loss_ranking"] < steps[0]["loss_ranking"]
    assert steps[-1]["step"] == 20  # 300 users in batches of 64, 4 epochs
    assert [record["epoch"] for record in records(run, "validation")] == [2, 4]
    assert list((run / "tensorboard").iterdir())


def test_the_weighter_moves_the_enhancer_teaches_and_exact_norms_are_logged(run: Path) -> None:
    steps = records(run, "step")
    assert steps[0]["weight_ranking"] == 1.0
    assert steps[-1]["weight_ranking"] > 1.0  # ranking has the smaller gradient
    assert steps[0]["hard_negatives"] == 0
    assert steps[-1]["hard_negatives"] + steps[-1]["soft_positives"] > 0
    exact = records(run, "exact_norms")
    assert [record["step"] for record in exact] == [1, 4, 7, 10, 13, 16, 19]
    assert all(record["exact_retrieval"] > 0 and record["exact_ranking"] > 0 for record in exact)


def test_one_rank_and_two_ranks_evaluate_to_the_same_figures(run: Path) -> None:
    metrics = []
    for ranks in (1, 2):
        done = unigrf("evaluate", "--run", run, "--ranks", ranks, "--set", "evaluate.batch_users=32")
        assert done.returncode == 0, done.stderr
        metrics.append(json.loads((run / "metrics.json").read_text())["splits"]["test"])
    assert metrics[0] == metrics[1]
    assert metrics[0]["num_users"] == 300
    assert {"popularity", "most_recent"} <= metrics[0]["baselines"].keys()
    assert metrics[0]["planted_optimum"]["retrieval"]["hr@10"] > 0


def test_the_report_is_one_file_that_loads_nothing(run: Path) -> None:
    done = unigrf("report", "--run", run)
    assert done.returncode == 0, done.stderr
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert "Enhancer targets per step" in page
    assert "Correlation of the logarithms" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_a_run_stopped_by_sigterm_goes_on_to_the_same_weights(run: Path, config: Path) -> None:
    """Also proves that the launcher's own stop reaches the ranks, and that they save before they end."""
    folder = config.parent / "stopped"
    arguments = ["train", "--config", str(config), "--run", str(folder), "--ranks", "2"]
    process = subprocess.Popen([*UNIGRF, *arguments], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and '"step"' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 130
    at = stored_state(latest(folder))["step"]
    assert 2 <= at <= 20
    done = unigrf(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    through, resumed = stored_values(latest(run)), stored_values(latest(folder))
    assert len(through) > 10
    for name, value in through.items():
        assert torch.equal(resumed[name], value), name


def test_a_refused_resume_leaves_the_run_as_it_was(run: Path, config: Path) -> None:
    before = (run / "config.yaml").read_bytes()
    done = unigrf("train", "--config", config, "--run", run, "--resume", "--set", "model.width=20")
    assert done.returncode == 2
    assert_one_line(done.stderr, "model.width was 16 and is 20")
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "--run", "{run}", "--checkpoint", "step-9"], "is no name of a checkpoint"),
        (["train", "--config", "{config}", "--run", "{run}x", "--resume"], "no run to resume"),
    ],
)
def test_a_mistake_that_a_rank_finds_is_told_by_the_command(
    run: Path, config: Path, arguments: list[str], words: str
) -> None:
    done = unigrf(*filled(arguments, run, config))
    assert done.returncode == 2
    assert_one_line(done.stderr, words)


def filled(arguments: list[str], run: Path, config: Path) -> list[str]:
    return [word.replace("{config}", str(config)).replace("{run}", str(run)) for word in arguments]


def test_figures_name_their_data_and_other_items_are_refused(run: Path, tmp_path: Path) -> None:
    made = unigrf("synthesize", "--out", tmp_path / "other", "--users", 300, "--items", 121, "--mean-length", 14)
    assert made.returncode == 0, made.stderr
    done = unigrf("evaluate", "--run", run, "--set", f"data.path={tmp_path / 'other'}")
    assert done.returncode == 2
    assert "the data has grown since, from 120 to 121 items" in done.stderr
    stored = json.loads((run / "metrics.json").read_text())["splits"]["test"]
    assert stored["data"].endswith("data")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--config", "absent.yaml", "--run", "x"], "absent.yaml: can't read the configuration"),
        (["train", "--config", "{config}", "--run", "{run}"], "holds a run already"),
        (["train", "--config", "{config}", "--run", "x", "--ranks", "65"], "data.partitions = 64, but 65 ranks"),
        (
            ["train", "--config", "{config}", "--run", "x", "--set", "data.path=nowhere"],
            "nowhere: no data set here",
        ),
        (["train", "--config", "{config}", "--run", "x", "--set", "model.widht=3"], "did you mean width"),
        (
            ["train", "--config", "{config}", "--run", "x", "--set", "objective.ranking=[{rule: stars > 1}]"],
            "needs 'stars'",
        ),
        (
            ["train", "--config", "{config}", "--run", "x", "--set", "deepspeed.zero_optimization.stage=3"],
            "exact_every_steps needs whole parameters",
        ),
        (
            ["train", "--config", "{config}", "--run", "x", "--set", "objective.weighter.ranking=0"],
            "to train one task use static",
        ),
        (
            ["train", "--config", "{config}", "--run", "x", "--set", "objective.enhancer.hard_negatives=9"],
            "must not exceed candidates = 4",
        ),
        (["train", "--config", "{config}", "--run", "x", "--set", "model.key_heads=1"], "remove the key"),
        (["train", "--config", "{config}", "--run", "x", "--set", "train.selection.metric=foo"], "allowed: hr@1"),
        (["train", "--config", "{config}", "--run", "x", "--set", "deepspeed.optimizer.params.lr=-1"], "above 0"),
        (["train", "--config", "{config}", "--run", "x", "--set", "deepspeed.optimizer=null"], "give a mapping"),
        (["train", "--config", "{config}", "--run", "x", "--set", "deepspeed.scheduler.type=Foo"], "WarmupLR"),
        (
            ["train", "--config", "{config}", "--run", "x", "--set", "tables.learning_rate=.inf"],
            "tables.learning_rate",
        ),
        (["evaluate", "--run", "nowhere"], "nowhere: no run here"),
        (["evaluate", "--run", "{run}", "--split", "train"], "allowed are test and validation"),
        (["report", "--run", "nowhere"], "nowhere"),
        (["prepare", "movielens-9m", "--raw", "x", "--out", "y"], "movielens-1m"),
    ],
)
def test_a_mistake_is_told_before_any_rank_starts(
    run: Path,
    config: Path,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["unigrf", *filled(arguments, run, config)])
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a rank"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert_one_line(capsys.readouterr().err, words)


def assert_one_line(stderr: str, words: str) -> None:
    """One line is the error, with ``words`` in it, and nobody sees a traceback."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert words in lines[0]
    assert "Traceback" not in stderr


def test_bench_compares_two_configurations_step_by_step(config: Path) -> None:
    out = config.parent / "bench.json"
    changes = ("--versus", "objective.enhancer=null", "--versus", "objective.weighter.strategy=static")
    done = unigrf("bench", "train", "--config", config, "--ranks", 2, "--steps", 6, *changes, "--out", out)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    versus = report["versus"]
    assert report["steps"] == versus["steps"] == 6
    assert report["interactions_per_step"] == versus["interactions_per_step"] > 0
    assert versus["set"] == ["objective.enhancer=null", "objective.weighter.strategy=static"]
    assert "enhancer" in report["milliseconds_by_phase"]
    assert "enhancer" not in versus["milliseconds_by_phase"]
    assert versus["milliseconds_more_by_phase"]["enhancer"] < 0
    assert versus["ratio"]["low"] <= versus["ratio"]["median"] <= versus["ratio"]["high"]
    assert "times as long with the change" in " ".join(done.stdout.split())
    shown = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("│")]
    assert "enhancer" in shown  # also a phase that only the first has
    assert shown[-1] == "all"

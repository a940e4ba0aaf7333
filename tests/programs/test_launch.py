"""From the command line to the rank programs: which module is started, with which arguments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.data.small_sets import distinct_users, write_users
from tests.train.small_run import small_config
from unigrf_dist.errors import UserError
from unigrf_dist.programs.bench import launch_bench
from unigrf_dist.programs.evaluate import launch_evaluation
from unigrf_dist.programs.train import launch_training
from unigrf_dist.ranks import launch

Started = list[tuple[str, list[str], int]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """What would have been started."""
    calls: Started = []

    def record(module: str, arguments: list[str], *, ranks: int) -> int:
        calls.append((module, arguments, ranks))
        return 7

    monkeypatch.setattr(launch, "launch", record)
    return calls


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    write_users(tmp_path / "data", distinct_users([5, 3, 4]))
    config = small_config().model_dump(mode="json")
    config["data"]["path"] = str(tmp_path / "data")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "run.yaml"


def test_training_is_handed_to_the_ranks_with_all_options(config_file: Path, started: Started) -> None:
    run = config_file.parent / "run"
    words = ["train.epochs=2", "model.width=8"]
    assert launch_training(config_file, run, ranks=2, overrides=words, resume=True) == 7
    expected = ["--config", str(config_file), "--run", str(run), "--set", words[0], "--set", words[1], "--resume"]
    assert started == [("unigrf_dist.train", expected, 2)]


@pytest.mark.parametrize(
    ("overrides", "ranks", "told"),
    [
        (["train.selection.metric=ndcg"], 1, "train.selection.metric is 'ndcg'"),
        (["model.user_features=[age]"], 1, "model.user_features names age"),
        (["objective.ranking=[{rule: like == 1}]"], 1, "needs 'like'"),
        (["data.partitions=2"], 3, "data.partitions = 2, but 3 ranks"),
    ],
)
def test_no_rank_starts_for_a_run_that_does_not_fit(
    config_file: Path, started: Started, overrides: list[str], ranks: int, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        launch_training(config_file, config_file.parent / "run", ranks=ranks, overrides=overrides)
    assert started == []


def test_evaluation_is_handed_to_the_ranks_with_all_options(config_file: Path, started: Started) -> None:
    run = config_file.parent
    config_file.rename(run / "config.yaml")
    words = ["evaluate.batch_users=4"]
    assert launch_evaluation(run, split="validation", checkpoint="latest", ranks=2, overrides=words) == 7
    expected = ["--run", str(run), "--split", "validation", "--checkpoint", "latest", "--set", words[0]]
    assert started == [("unigrf_dist.programs.evaluate", expected, 2)]
    with pytest.raises(UserError, match="--split train: allowed are test and validation"):
        launch_evaluation(run, split="train")


def test_a_bench_is_handed_to_the_ranks_with_both_configurations(config_file: Path, started: Started) -> None:
    out = config_file.parent / "bench.json"
    launch_bench(config_file, steps=3, overrides=["model.width=8"], versus=["model.blocks=1"], out=out)
    expected = ["--config", str(config_file), "--steps", "3", "--set", "model.width=8"]
    expected += ["--versus", "model.blocks=1", "--out", str(out)]
    assert started == [("unigrf_dist.programs.bench", expected, 1)]


@pytest.mark.parametrize("program", ["train", "evaluate", "bench"])
def test_a_wrong_option_is_refused_without_waiting_for_torch(program: str) -> None:
    asked = f"import sys, unigrf_dist.cli, unigrf_dist.programs.{program}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

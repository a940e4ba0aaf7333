"""What a person sees of a real run: what it does before the first step, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.train.small_run import small_config
from unigrf_dist.errors import UserError
from unigrf_dist.programs.refit import recipe_of
from unigrf_dist.synthetic import synthesize
from unigrf_dist.train.run_folder import refuse_trained_on

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks; five steps in an epoch, of which log_every_steps = 3 divides none."""
    folder = tmp_path_factory.mktemp("told")
    synthesize(folder / "data", num_users=40, num_items=60, mean_length=8)
    config = small_config(
        objective__ranking=[{"rule": "rating >= 4"}, {"rule": "rating >= 3"}],
        train__epochs=2,
        train__log_every_steps=3,
        train__selection={"metric": "auc[rating>=3]"},
    ).model_dump(mode="json")
    config["data"]["path"] = str(folder / "data")
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def trained(config_file: Path, *arguments: str) -> list[str]:
    run = str(config_file.parent / "run")
    return unigrf("train", "--config", str(config_file), "--run", run, *arguments)


def unigrf(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "unigrf_dist", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def first(lines: list[str], start: str) -> int:
    return next(i for i, line in enumerate(lines) if line.startswith(start))


def last_record(run: Path) -> dict:
    return json.loads((run / "log.jsonl").read_text().splitlines()[-1])


def test_a_run_tells_what_it_builds_and_how_it_ended(config_file: Path) -> None:
    run, lines = config_file.parent / "run", trained(config_file)
    assert "40 users" in lines[first(lines, "data ")]
    order = [first(lines, start) for start in ("data ", "building ", "best model by auc[rating >= 3]", "epoch 1:")]
    assert order == sorted(order)
    assert any("10/10" in line for line in lines)
    assert "finished after epoch 2, step 10" in lines
    assert lines[-1] == f"next:  unigrf evaluate --run {run} --split test"
    finished = last_record(run)
    validations = [
        record
        for record in map(json.loads, (run / "log.jsonl").read_text().splitlines())
        if record["kind"] == "validation"
    ]
    auc = {record["epoch"]: record["ranking"]["rating >= 3"]["auc"] for record in validations}
    best = max(auc, key=lambda epoch: auc[epoch])
    assert finished == {
        "kind": "finished",
        "step": 10,
        "epoch": 2,
        "best": {"metric": "auc[rating >= 3]", "value": auc[best], "step": 5 * best, "epoch": best},
    }
    assert (run / "checkpoints" / "best").read_text().strip() == f"step-{5 * best:08d}"

    again = trained(config_file, "--resume", "--set", "train.epochs=3", "--allow-change", "train.epochs")
    assert "resuming from checkpoint step-00000010 at step 10" in again
    assert any("15/15" in line for line in again)
    assert last_record(run)["step"] == 15

    # Validation's choice stands, trained once more on its events too; here cut short within an epoch.
    refit, new = ["--refit", str(run), "--set", "train.stop_after_steps=7"], config_file.parent / "refit"
    told = unigrf("train", *refit, "--run", str(new))
    assert "finished after epoch 1, step 7: train.stop_after_steps = 7" in "\n".join(told)
    assert (new / "checkpoints" / "best").read_text().strip() == "step-00000007"
    kept = yaml.safe_load((new / "config.yaml").read_text())
    chosen = (run / "checkpoints" / "best").read_text().strip()
    assert kept["train"]["refit_of"] == f"{run}/{chosen}"
    assert recipe_of(None, run, final=True) == (
        run / "config.yaml",
        [
            "data.train_to=test",
            f"train.stop_after_steps={int(chosen.removeprefix('step-'))}",
            f"train.refit_of={run}/{chosen}",
            "train.selection.patience=null",
        ],
    )
    assert not [r for r in (new / "log.jsonl").read_text().splitlines() if '"validation"' in r]
    with pytest.raises(UserError, match=r"trained on the validation events.*--split test is left"):
        refuse_trained_on(new, "validation")
    refuse_trained_on(new, "test")
    with pytest.raises(UserError, match="refit the run that it is a refit of"):
        recipe_of(None, new, final=False)


@pytest.mark.parametrize(
    ("config", "refit", "final", "words"),
    [
        (None, None, False, "--config FILE, or --refit RUN"),
        (Path("a.yaml"), Path("run"), False, "leave --config out"),
        (Path("a.yaml"), None, True, "name its run with --refit"),
    ],
)
def test_what_to_train_is_said_once(config: Path | None, refit: Path | None, final: bool, words: str) -> None:
    with pytest.raises(UserError, match=words):
        recipe_of(config, refit, final=final)

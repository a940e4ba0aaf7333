"""A tiny data set, a configuration over it, and studies of runs that are only pretended."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from unigrf_dist.cli import app
from unigrf_dist.programs import study as commands
from unigrf_dist.study import runner
from unigrf_dist.synthetic import synthesize

ROOT = Path(__file__).parents[2]
if not any(command.name == "ablate" for command in app.registered_commands):
    commands.register(app)

BASE: dict[str, Any] = {
    "model": {"width": 16, "blocks": 1, "heads": 1, "head_width": 16, "dropout": 0.1},
    "objective": {"ranking": [{"rule": "rating >= 4"}]},
    "train": {"epochs": 2, "global_batch_users": 32, "log_every_steps": 1},
    "evaluate": {"bootstrap_samples": 20},
    "deepspeed": {"optimizer": {"type": "AdamW", "params": {"lr": 3e-3}}},
}
ABLATION: dict[str, Any] = {
    "base": "base.yaml",
    "seeds": [1, 2],
    "baseline": "naive",
    "variants": {
        "naive": {"description": "both"},
        "retrieval_only": {"overrides": {"objective.weighter.ranking": 0}},
        "wide": {"overrides": {"model.width": 32}},
    },
}


def changed(**values: Any) -> dict[str, Any]:
    """``ABLATION`` with other values."""
    return {**copy.deepcopy(ABLATION), **values}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "data"
    synthesize(folder, num_users=150, num_items=60, mean_length=10, seed=0)
    return folder


@pytest.fixture
def folder(tmp_path: Path, data: Path) -> Path:
    """A folder with a base configuration."""
    values = {**BASE, "data": {"path": str(data), "max_events": 12}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs are pretended from here on; call it to say which fail or are slow."""

    def behave(**behaviour: list[str]) -> None:
        monkeypatch.setenv("PRETEND", json.dumps(behaviour))

    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(runner, "UNIGRF", (sys.executable, "-m", "tests.study.pretend"))
    monkeypatch.chdir(ROOT)
    behave()
    return behave


@pytest.fixture
def study(folder: Path) -> Callable[..., Any]:
    """Runs ``unigrf COMMAND --config … --out FOLDER/out`` with more words, and returns how it ended."""

    def call(*words: str, command: str = "ablate", values: dict[str, Any] | None = None) -> Any:
        file = folder / "study.yaml"
        if values is not None or not file.exists():
            file.write_text(yaml.safe_dump(values or ABLATION, sort_keys=False))
        arguments = [command, "--config", str(file), "--out", str(folder / "out"), *words]
        return CliRunner().invoke(app, arguments)

    return call

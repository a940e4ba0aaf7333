"""Side features in the configuration: named once each, and only those that the data set has."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unigrf_dist.cli import main
from unigrf_dist.config import load_config
from unigrf_dist.data import Dataset, open_dataset
from unigrf_dist.errors import UserError
from unigrf_dist.synthetic import synthesize
from unigrf_dist.train.checks import refuse_absent_features

MINIMAL = """
data: {path: somewhere}
objective: {ranking: [{rule: rating >= 4}]}
train: {epochs: 1}
deepspeed: {optimizer: {type: AdamW}}
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(MINIMAL, encoding="utf-8")
    return tmp_path / "run.yaml"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("synthetic") / "set"
    synthesize(out, num_users=20, num_items=40, mean_length=6)
    return open_dataset(out)


def test_no_features_unless_they_are_named(config_file: Path, dataset: Dataset) -> None:
    config = load_config(config_file)
    assert (config.model.item_features, config.model.user_features) == ([], [])
    refuse_absent_features(config, dataset)


def test_a_name_given_twice(config_file: Path) -> None:
    with pytest.raises(UserError, match=r"model\.item_features = .*: genre is named twice"):
        load_config(config_file, ["model.item_features=[genre, year, genre]"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.item_features=[group, taste]", "model.item_features names taste, but .*set has for items: group"),
        ("model.user_features=[age]", "model.user_features names age, but .*set has for users: taste"),
    ],
)
def test_a_feature_that_the_data_set_does_not_have(
    config_file: Path, dataset: Dataset, override: str, told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        refuse_absent_features(load_config(config_file, [override]), dataset)
    assert "\n" not in str(caught.value)


def test_training_is_refused_before_a_rank_starts(
    config_file: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["unigrf", "train", "--config", str(config_file), "--run", str(config_file.parent / "run")]
    words += ["--set", f"data.path={dataset.path}", "--set", "model.item_features=[colour]"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: model.item_features names colour, but")

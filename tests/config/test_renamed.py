"""Keys under their old names: refused wherever they come from, with the new name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from unigrf_dist.config import Config, load_config
from unigrf_dist.config import renamed as table
from unigrf_dist.errors import UserError
from unigrf_dist.study.plan import plan_trials
from unigrf_dist.study.schema import read_ablation

MINIMAL = """
data: {path: somewhere}
objective: {ranking: [{rule: rating >= 4}]}
train: {epochs: 1}
deepspeed: {optimizer: {type: AdamW}}
"""
OLD_AND_NEW = [
    ("objective.retrieval.leave_out_met", "objective.retrieval.mask_seen_negatives", False),
    ("objective.enhancer.proposals", "objective.enhancer.candidates", 16),
    ("objective.enhancer.favourites", "objective.enhancer.soft_positives", 1),
    ("train.selection.every_epochs", "train.selection.every", "2 epochs"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(MINIMAL, encoding="utf-8")
    return tmp_path / "run.yaml"


def told(old: str, new: str) -> str:
    return f"unknown key {old}; it is called {new} now"


@pytest.mark.parametrize(("old", "new", "value"), OLD_AND_NEW)
def test_in_a_file(file: Path, old: str, new: str, value: object) -> None:
    values = yaml.safe_load(MINIMAL)
    top, section, key = old.split(".")
    values[top].setdefault(section, {})[key] = value
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_config(file)
    assert str(caught.value) == f"{file}: {told(old, new)}"


@pytest.mark.parametrize(("old", "new", "value"), OLD_AND_NEW)
def test_in_an_override(file: Path, old: str, new: str, value: object) -> None:
    section, key = old.rsplit(".", maxsplit=1)
    for override in (f"{old}={json.dumps(value)}", f"{section}={{{key}: {value}}}"):
        with pytest.raises(UserError) as caught:
            load_config(file, [override])
        assert str(caught.value) == f"{file}: {told(old, new)}"


@pytest.mark.parametrize(("old", "new", "value"), OLD_AND_NEW)
def test_the_new_name_takes_the_old_value(file: Path, old: str, new: str, value: object) -> None:
    config: object = load_config(file, [f"{new}={json.dumps(value)}"])
    for name in new.split("."):
        config = getattr(config, name)
    assert config == value


def test_in_the_overrides_of_a_study(file: Path, tmp_path: Path) -> None:
    study = tmp_path / "ablation.yaml"
    variants = {"naive": {}, "masked": {"overrides": {"objective.retrieval.leave_out_met": True}}}
    values = {"base": "run.yaml", "seeds": [1], "baseline": "naive", "variants": variants}
    study.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        plan_trials(read_ablation(study), study, tmp_path / "out", overrides=[], seeds=[], ranks=1)
    assert told("objective.retrieval.leave_out_met", "objective.retrieval.mask_seen_negatives") in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("old", "new", "override"),
    [
        ("train.batch", "train.global_batch_users", "train.batch=8"),
        # Into another section, and out of a list of sections.
        ("model.time_unit", "data.time_unit", "model.time_unit=s"),
        ("objective.ranking.importance", "objective.ranking.weight", "objective.ranking=[{importance: 1}]"),
    ],
)
def test_any_entry_of_the_table_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, override: str
) -> None:
    monkeypatch.setitem(table.RENAMED_KEYS, old, new)
    with pytest.raises(UserError, match=rf"it is called {new} now"):
        load_config(file, [override])


def test_the_table_leads_from_keys_that_are_gone_to_keys_that_exist() -> None:
    def exists(key: str) -> bool:
        model = Config
        for name in key.split("."):
            if name not in model.model_fields:
                return False
            annotation = model.model_fields[name].annotation
            inner = [
                kind
                for kind in (annotation, *getattr(annotation, "__args__", ()))
                if hasattr(kind, "model_fields")
            ]
            model = inner[0] if inner else Config
        return True

    for old, new in table.RENAMED_KEYS.items():
        assert exists(new), new
        assert not exists(old), old


def test_a_number_of_epochs_under_the_new_name_is_told_how_to_say_it(file: Path) -> None:
    with pytest.raises(UserError, match=r"it is called train\.checkpoint_every now"):
        load_config(file, ["train.checkpoint_every_epochs=4"])
    with pytest.raises(UserError, match=r"train\.checkpoint_every = '4': give steps, minutes or epochs"):
        load_config(file, ["train.checkpoint_every='4'"])

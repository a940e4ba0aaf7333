"""Configuration files: what is accepted, and what a mistake is told like."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unigrf_dist.config import load_config, save_config
from unigrf_dist.config.schema import Config, Section
from unigrf_dist.errors import UserError

FILES = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
# Those of studies have a schema of their own: tests/study.
CONFIGS = [path for path in FILES if not path.stem.startswith(("ablation", "scaling"))]

MINIMAL = """
data: {path: somewhere}
objective: {ranking: [{rule: rating >= 4}]}
train: {epochs: 1}
deepspeed: {optimizer: {type: AdamW}}
"""


def write(tmp_path: Path, text: str = MINIMAL) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_configurations_are_found() -> None:
    names = {f"{path.parent.name}/{path.stem}" for path in CONFIGS}
    assert {"configs/demo", "ml-1m/hstu", "ml-1m/llama", "ml-20m/hstu", "amazon-books/hstu"} <= names


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_shipped_configuration_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    save_config(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_shipped_configuration_opens_with_the_command_that_runs_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert "unigrf train" in first or "make demo" in first


def test_an_override_replaces_one_value(tmp_path: Path) -> None:
    config = load_config(write(tmp_path), ["train.epochs=7", "model.dropout=0.5", "tables.learning_rate=2e-3"])
    assert (config.train.epochs, config.model.dropout, config.tables.learning_rate) == (7, 0.5, 0.002)


def test_an_exponent_without_a_dot_is_a_number(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, MINIMAL + "tables: {learning_rate: 1e-3}\n")).tables.learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "override", "words"),
    [
        (MINIMAL + "modle: {}\n", "", ["unknown key modle", "did you mean model"]),
        (MINIMAL, "model.widht=64", ["unknown key model.widht", "did you mean width"]),
        (MINIMAL, "model.dropout=1.5", ["model.dropout = 1.5", "less than 1"]),
        (MINIMAL, "model.blocks=many", ["model.blocks = 'many'", "integer"]),
        (MINIMAL, "model.blocks=true", ["model.blocks = True", "a number, not a truth value"]),
        (MINIMAL, "model.backbone=gru", ["model.backbone = 'gru'", "hstu"]),
        (MINIMAL, "objective.ranking=[{rule: rating is good}]", ["rating is good", "rating >= 4"]),
        (MINIMAL, "objective.retrieval.targets=click", ["'click' is no task rule"]),
        (MINIMAL, "train", ["--set train", "section.key=value"]),
        (MINIMAL, "data.path.x=1", ["--set data.path.x=1", "not a section"]),
        (MINIMAL, "deepspeed.fp16.enabled=true", ["deepspeed.fp16.enabled", "bf16"]),
        (MINIMAL, "deepspeed.gradient_accumulation_steps=2", ["gradient_accumulation_steps is 2", "only 1"]),
        (
            MINIMAL,
            "deepspeed.train_batch_size=64",
            ["deepspeed.train_batch_size", "train.global_batch_users"],
        ),
        (MINIMAL, "deepspeed.bf16.enabled=true", ["stage 0", "master weights", "stage 1, 2 or 3"]),
        (MINIMAL, "deepspeed.zero_optimization.stage=4", ["stage is 4", "0, 1, 2, 3"]),
        (MINIMAL, "deepspeed.optimizer.type=Lion", ["'Lion'", "Adam, AdamW"]),
        (MINIMAL, "objective.weighter={retrieval: 0, ranking: 0}", ["both 0"]),
        (MINIMAL.replace("train: {epochs: 1}", "train: {}"), "", ["key train.epochs is missing"]),
        (MINIMAL + "train: {epochs: 2}\n", "", ["given twice"]),
        ("- a\n- b\n", "", ["mapping of sections"]),
        ("a: [\n", "", ["no valid YAML"]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(
    tmp_path: Path, text: str, override: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, text), [override] if override else [])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path), ["model.width=0", "model.heads=-1", "train.epochs=none"])
    for key in ("model.width", "model.heads", "train.epochs"):
        assert key in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def _sections(model: type[Section] = Config) -> list[type[Section]]:
    found: list[type[Section]] = [model]
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, Section):
                found += _sections(kind)
    return found


def test_every_section_is_frozen_and_refuses_unknown_keys() -> None:
    sections = _sections()
    assert len(sections) >= 10
    for section in sections:
        assert section.model_config["frozen"]
        assert section.model_config["extra"] == "forbid"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "objective.enhancer={}",
            "objective.enhancer scores by the first ranking task, but objective.ranking is []",
        ),
        (
            "objective.weighter.strategy=gradient",
            "objective.weighter balances two tasks, but objective.ranking is []",
        ),
        ("objective.weighter.exact_every_steps=5", "objective.weighter balances two tasks"),
        ("objective.weighter.retrieval=0", "nothing would be trained"),
    ],
)
def test_retrieval_alone_leaves_nothing_to_balance(tmp_path: Path, override: str, expected: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(MINIMAL)
    assert load_config(file, overrides=["objective.ranking=[]"]).objective.ranking == []
    with pytest.raises(UserError, match=re.escape(expected)):
        load_config(file, overrides=["objective.ranking=[]", override])

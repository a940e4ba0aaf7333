"""``docs/configuration.md``: made from the schema, current, and nothing undescribed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from unigrf_dist.config import Config, load_config
from unigrf_dist.config.reference import configuration_page, section_of, sections
from unigrf_dist.config.schema import Section

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
KEYS = [(section.path, key) for section in sections() for key in section.keys]


def row(page: str, path: str, name: str) -> list[str]:
    """The cells of a key's line."""
    part = page.split(f"## `{path}`\n", maxsplit=1)[1].split("\n## ", maxsplit=1)[0]
    (line,) = re.findall(rf"^\| `{name}` \|.*$", part, re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == configuration_page(), "run `make docs` and commit the page"


@pytest.mark.parametrize(("path", "key"), KEYS, ids=lambda part: getattr(part, "name", part))
def test_every_key_is_described_in_a_sentence(path: str, key) -> None:
    assert re.fullmatch(r"[`A-Z].*\.", key.description), f"{path}.{key.name}: {key.description!r}"
    assert not key.description.startswith("Of ")
    assert "|" not in "".join(key)


def test_every_section_says_what_it_is_about() -> None:
    for section in sections():
        assert section.summary.endswith("."), section.path


def test_every_key_of_the_shipped_configurations_is_on_the_page() -> None:
    named = {f"{path.replace('[]', '')}.{key.name}".lstrip(".") for path, key in KEYS}

    def keys(values: dict, above: str = "") -> set[str]:
        found = set()
        for name, value in values.items():
            path = f"{above}.{name}".lstrip(".")
            entries = value if isinstance(value, list) else [value]
            mappings = [entry for entry in entries if isinstance(entry, dict)]
            if path == "deepspeed" or not mappings:
                found.add(path)
            found |= {key for entry in mappings if path != "deepspeed" for key in keys(entry, path)}
        return found

    for file in ("demo.yaml", "ml-1m/hstu.yaml", "ml-1m/llama.yaml", "ml-1m/features.yaml"):
        values = yaml.safe_load((ROOT / "configs" / file).read_text(encoding="utf-8"))
        assert keys(values) <= named, file


@pytest.mark.parametrize(
    ("path", "name", "cells"),
    [
        ("data", "path", ["path", "must be given", ""]),
        ("model", "backbone", ["`hstu`, `llama`", "`hstu`", ""]),
        ("model", "dropout", ["number", "`0.2`", "≥ 0, < 1"]),
        ("model", "key_heads", ["integer or `null`", "`null`", "≥ 1"]),
        ("model", "item_features", ["list of texts", "`[]`", ""]),
        ("model", "time_bias", ["`true`, `false`", "`true`", ""]),
        ("tables", "betas", ["2 numbers", "`[0.9, 0.98]`", ""]),
        ("tables", "eps", ["number", "`1e-08`", "> 0"]),
        ("train", "seed", ["integer", "`42`", "≥ 0, < 2147483648"]),
        ("objective.ranking[]", "rule", ["text", "must be given", ""]),
        ("objective.enhancer", "threshold", ["number", "`0.9`", "≥ 0, ≤ 1"]),
    ],
)
def test_a_line_of_the_page(path: str, name: str, cells: list[str]) -> None:
    assert row(configuration_page(), path, name)[1:4] == cells


def test_a_list_tells_how_many_and_an_optional_section_that_it_is_off() -> None:
    page = " ".join(configuration_page().split())
    assert "A list of ≤ 16 entries." in page
    assert "Off if left out; `{}` takes the defaults." in page


def test_a_default_on_the_page_is_what_a_file_without_the_key_gets(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "data: {path: somewhere}\nobjective: {ranking: [{rule: rating >= 4}], enhancer: {}}\n"
        "train: {epochs: 1, average: {}}\ndeepspeed: {optimizer: {type: AdamW}}\n"
    )
    values = load_config(file).model_dump(mode="json")
    for path, key in KEYS:
        if not key.default:
            continue
        part = values
        for name in path.split(".") if path else []:
            part = part[name.removesuffix("[]")]
            part = part[0] if isinstance(part, list) else part
        given = f"x: {key.default}"
        assert yaml.safe_load(given.replace("e-0", ".0e-0"))["x"] == part[key.name], f"{path}.{key.name}"


def _all_sections(model: type[Section]) -> set[type[Section]]:
    inner = [section_of(field) for field in model.model_fields.values()]
    return {model}.union(*(_all_sections(each) for each in inner if each))


def test_no_section_is_forgotten() -> None:
    assert {kind for kind in Section.__subclasses__() if kind.__module__ == Config.__module__} == _all_sections(
        Config
    )

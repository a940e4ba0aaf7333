"""``unigrf config``: the resolved configuration, and the page of all keys."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from unigrf_dist.cli import main
from unigrf_dist.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
# Those of studies have a schema of their own.
RUNS = [path for path in sorted(CONFIGS.rglob("*.yaml")) if not path.stem.startswith(("ablation", "scaling"))]


def unigrf(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command line in this process. Returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["unigrf", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_shown_loads_as_the_same_configuration(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "--set",
        "train.epochs=3",
        "--set",
        "objective.enhancer={candidates: 16}",
        "--set",
        "data.path='a: # b'",
    )
    assert unigrf(monkeypatch, "config", "show", path, *words) == 0
    (tmp_path / "shown.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_config(tmp_path / "shown.yaml") == load_config(path, words[1::2])


def test_defaults_are_told_from_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "data: {path: somewhere}\nobjective: {ranking: [{rule: rating >= 4}]}\ntrain: {epochs: 1}\n"
        "deepspeed: {optimizer: {type: AdamW}}\n"
    )
    assert unigrf(monkeypatch, "config", "show", file, "--set", "model.width=50") == 0
    shown = capsys.readouterr().out.splitlines()
    # 50 is the default as well, but it was given.
    for line in ("  path: somewhere", "  width: 50", "  heads: 1  # default", "  enhancer: null  # default"):
        assert line in shown
    assert "  betas:  # default" in shown
    assert yaml.safe_load("\n".join(shown))["model"]["width"] == 50


def test_a_wrong_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unigrf(monkeypatch, "config", "show", tmp_path / "absent.yaml") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "absent.yaml: can't read the configuration" in line


def test_the_reference_is_printed_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unigrf(monkeypatch, "config", "reference") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# All keys of a configuration\n")
    assert unigrf(monkeypatch, "config", "reference", "--out", tmp_path / "page.md") == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == printed
    assert unigrf(monkeypatch, "config", "reference", "--out", tmp_path / "absent" / "page.md") == 2
    assert "can't write the page" in capsys.readouterr().err

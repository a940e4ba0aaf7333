"""README: its Python runs, and the files that it and CONTRIBUTING name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
_PATHS = re.compile(r"`((?:unigrf_dist|kernels|tests|configs|docs|launchers|tools)/[\w./-]+)`")


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [code] = _CODE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    exec(code, names)
    assert names["attended"].shape == names["q"].shape  # type: ignore[attr-defined]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_are_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = {target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target}
    named = {path for path in _PATHS.findall(text) if "NAME" not in path}
    assert links
    assert [path for path in sorted(links | named) if not (ROOT / path.split("::")[0]).exists()] == []

"""The import contracts of ``pyproject.toml`` hold, and each breaks when a wrong import is written.

A contract that names no module any more, or ignores too much, would be kept whatever the code does; so every one
is tried on a copy of the tree with one line added.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """The contracts of ``root`` checked against the code in ``root``, not against the installed one."""
    paths = os.pathsep.join([str(root), str(root / "kernels")])
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the code and of its contracts."""
    only_code = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("unigrf_dist", "kernels/unigrf_kernels"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=only_code)
    return tmp_path


def test_the_contracts_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("unigrf_dist/data/batch.py", "import unigrf_dist.prepare.writer", "unigrf_dist.data is not allowed"),
        ("unigrf_dist/prepare/writer.py", "import unigrf_dist.synthetic", "unigrf_dist.prepare is not allowed"),
        ("unigrf_dist/objective/pairs.py", "import unigrf_dist.model.unigrf", "unigrf_dist.objective is not"),
        ("unigrf_dist/evaluate/table.py", "import unigrf_dist.report.words", "unigrf_dist.evaluate is not"),
        ("unigrf_dist/study/plan.py", "import unigrf_dist.programs.data", "unigrf_dist.study is not allowed"),
        ("unigrf_dist/train/loop.py", "import unigrf_dist.programs.train", "unigrf_dist.train is not allowed"),
        ("unigrf_dist/ranks/launch.py", "import unigrf_dist.config", "unigrf_dist.ranks is not allowed"),
        ("unigrf_dist/phases.py", "import unigrf_dist.data.batch", "unigrf_dist.phases is not allowed"),
        ("unigrf_dist/errors.py", "import unigrf_dist.phases", "unigrf_dist.errors is not allowed"),
        ("unigrf_dist/doctor/check.py", "import unigrf_dist.config", "unigrf_dist.doctor is not allowed"),
        ("unigrf_dist/models.py", "", "unigrf_dist.models"),
        (
            "kernels/unigrf_kernels/ops/row_tiles.py",
            "import unigrf_dist.errors",
            "unigrf_kernels is not allowed to import unigrf_dist",
        ),
        (
            "kernels/unigrf_kernels/ops/row_tiles.py",
            "import unigrf_kernels.bench.timing",
            "unigrf_kernels.ops is not allowed to import unigrf_kernels.bench",
        ),
    ],
)
def test_a_wrong_import_breaks_a_contract(tree: Path, file: str, line: str, told: str) -> None:
    with (tree / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    result = lint(tree)
    assert result.returncode == 1, result.stdout + result.stderr
    assert told in " ".join(result.stdout.split())


def test_an_import_inside_a_function_counts_too(tree: Path) -> None:
    with (tree / "unigrf_dist/data/batch.py").open("a", encoding="utf-8") as source:
        source.write("\ndef late() -> None:\n    from unigrf_dist.train import loop\n")
    assert lint(tree).returncode == 1

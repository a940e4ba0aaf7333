"""Every launcher parses, is executable, and is on the page that explains them."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.launchers.shell import ROOT

SCRIPTS = sorted([*ROOT.glob("launchers/*.sh"), *ROOT.glob("launchers/*.sbatch"), ROOT / ".ci" / "run"])


def test_all_scripts_are_found() -> None:
    names = [path.name for path in SCRIPTS]
    assert sorted(names) == ["common.sh", "hostfile.sh", "local.sh", "run", "slurm.sbatch"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses(path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "path", [path for path in SCRIPTS if path.name != "common.sh"], ids=lambda path: path.name
)
def test_a_script_can_be_executed(path) -> None:
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("page", ["launchers/README.md", "docs/cluster.md"])
def test_the_pages_name_only_launchers_that_exist_and_all_of_them(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in ("local.sh", "hostfile.sh", "slurm.sbatch", "kubernetes.yaml"):
        assert name in text, name

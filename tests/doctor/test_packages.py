"""Packages: versions against the project's own metadata, and the FBGEMM builds that exclude each other."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from unigrf_dist.doctor import packages
from unigrf_dist.doctor.check import Check, Status

ROOT = Path(__file__).resolve().parents[2]
METADATA = [
    "torch==2.13.0",
    "deepspeed==0.19.8",
    "pyarrow>=17",
    "duckdb>=1.1",
    'fbgemm-gpu-cpu==1.8.0; extra == "cpu"',
    'triton==3.7.1; extra == "cpu"',
    'fbgemm-gpu==1.8.0; extra == "cuda"',
]
INSTALLED = {
    "torch": "2.13.0+cpu",
    "torchrec": "1.8.0",
    "fbgemm-gpu-cpu": "1.8.0",
    "deepspeed": "0.19.8",
    "triton": "3.7.1",
    "pyarrow": "25.0.0",
    "duckdb": "1.4.0",
}


def findings(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> dict[str, Check]:
    """Checks by name on a machine that has INSTALLED, with ``changes`` (``_`` for ``-``; None removes)."""
    installed = {**INSTALLED, **{name.replace("_", "-"): version for name, version in changes.items()}}

    def version(name: str) -> str:
        if installed.get(name) is None:
            raise metadata.PackageNotFoundError(name)
        return str(installed[name])

    monkeypatch.setattr(packages.metadata, "version", version)
    monkeypatch.setattr(packages.metadata, "requires", lambda name: METADATA)
    return {check.name: check for check in packages.check_packages()}


def test_a_good_installation_is_listed_and_leaves_nothing_to_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = findings(monkeypatch)
    assert {name: check.found for name, check in checks.items() if name != "python"} == INSTALLED
    assert all(check.status is Status.OK and not check.fix for check in checks.values())


def test_a_missing_package_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check = findings(monkeypatch, deepspeed=None)["deepspeed"]
    assert check.status is Status.FAIL
    assert check.fix.endswith("-m pip install 'deepspeed==0.19.8'")


def test_another_version_is_noted_but_may_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check = findings(monkeypatch, torch="2.12.1")["torch"]
    assert (check.status, check.found) == (Status.NOTE, "2.12.1, tested with ==2.13.0")
    assert check.fix.endswith("-m pip install 'torch==2.13.0'")


def test_torchrec_is_fixed_without_its_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    check = findings(monkeypatch, torchrec=None)["torchrec"]
    assert check.status is Status.FAIL
    assert check.fix.endswith("-m pip install --no-deps 'torchrec==1.8.0'")


def test_both_builds_of_fbgemm_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    check = findings(monkeypatch, fbgemm_gpu="1.8.0")["fbgemm-gpu"]
    assert check.status is Status.FAIL
    assert "pip uninstall --yes fbgemm-gpu fbgemm-gpu-cpu && make clean setup" in check.fix


def test_neither_build_of_fbgemm_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    check = findings(monkeypatch, fbgemm_gpu_cpu=None)["fbgemm-gpu"]
    assert (check.status, check.fix) == (Status.FAIL, "make clean setup")


def test_the_cuda_build_of_fbgemm_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    check = findings(monkeypatch, fbgemm_gpu_cpu=None, fbgemm_gpu="1.8.0")["fbgemm-gpu"]
    assert (check.status, check.found) == (Status.OK, "1.8.0")


def test_a_tree_that_is_not_installed_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "requires", requires)
    check = packages.check_packages()[-1]
    assert (check.name, check.status, check.fix) == ("unigrf-dist", Status.FAIL, "make setup")


def test_the_pins_of_the_pillars_agree_with_what_is_installed_by_make() -> None:
    pins = dict(re.findall(r"^([a-z-]+)==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert str(packages.TORCHREC.specifier) == f"=={pins['torchrec']}"
    stated = dict(re.findall(r'"([a-z-]+)==([\d.]+)"', (ROOT / "setup.py").read_text()))
    assert {"torch", "deepspeed", "fbgemm-gpu", "fbgemm-gpu-cpu", "triton"} <= stated.keys()
    del stated["unigrf-kernels"]  # of this repository
    for name, version in stated.items():
        assert pins[name] == version, name

"""Compilers: what is missing, what does not compile, and what a killed build left behind."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from unigrf_dist.doctor.check import Check, Status
from unigrf_dist.doctor.compilers import check_compilers


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds the real g++ and ninja and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("g++", "ninja"):
        (folder / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.delenv("CXX", raising=False)
    # Only these programs may be found: what is missing in the folder is missing for the checks.
    monkeypatch.setenv("PATH", str(folder))
    return folder


def found(*, on_cuda: bool = False) -> dict[str, Check]:
    return {check.name: check for check in check_compilers(on_cuda=on_cuda)}


def test_what_generated_code_needs_does_compile(programs: Path) -> None:
    checks = found()
    assert [checks[name].status for name in ("g++", "ninja", "nvcc")] == [Status.OK] * 3
    assert "g++" in checks["g++"].found


def test_no_compiler_comes_with_the_command_that_installs_it(programs: Path) -> None:
    (programs / "g++").unlink()
    check = found()["g++"]
    assert (check.status, check.fix) == (Status.FAIL, "apt-get install g++")


def test_a_compiler_without_headers_says_what_it_did_not_find(
    programs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path / "nowhere")})
    check = found()["g++"]
    assert check.status is Status.FAIL
    assert "Python.h" in check.found
    assert "python3-dev" in check.fix


def test_the_compiler_that_the_user_names_is_looked_at(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "clang++-99")
    assert found()["clang++-99"].status is Status.FAIL


def test_no_ninja_comes_with_the_command_that_installs_it(programs: Path) -> None:
    (programs / "ninja").unlink()
    check = found()["ninja"]
    assert check.status is Status.FAIL
    assert check.fix.endswith("-m pip install ninja")


def test_nvcc_is_needed_only_with_a_gpu(programs: Path) -> None:
    assert found(on_cuda=False)["nvcc"].status is Status.OK
    assert found(on_cuda=True)["nvcc"].status is Status.NOTE


@pytest.mark.parametrize("folder", ["deepspeed_shm_comm", "py311_cpu/deepspeed_shm_comm"])
def test_the_lock_of_a_killed_build_is_removed(programs: Path, tmp_path: Path, folder: str) -> None:
    lock = tmp_path / "extensions" / folder / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w"):  # as torch holds it while it builds
        assert "build lock" not in found()
        assert lock.exists()
    check = found()["build lock"]
    assert (check.status, check.found) == (Status.OK, f"removed {lock}: a killed build had left it")
    assert not lock.exists()


def test_a_lock_that_cannot_be_removed_comes_with_the_command(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "extensions" / "fused_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()

    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    check = found()["build lock"]
    assert (check.status, check.fix) == (Status.FAIL, f"rm {lock}")
    assert "Permission denied" in check.found

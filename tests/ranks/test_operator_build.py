"""Waiting for a build: only for one that somebody owns, and never without a word."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unigrf_dist.ranks import operator_build
from unigrf_dist.ranks.operator_build import _wait_for_foreign_build, exclusive

_HOLD_OPEN = (
    "import os, sys, time\nos.open(sys.argv[1], os.O_CREAT | os.O_RDWR)\nprint('held', flush=True); time.sleep(60)"
)
_HOLD_LOCK = (
    "import pathlib, sys, time\n"
    "from unigrf_dist.ranks.operator_build import exclusive\n"
    "with exclusive(pathlib.Path(sys.argv[1]), print):\n"
    "    print('held', flush=True); time.sleep(60)"
)


def holder(program: str, file: Path) -> subprocess.Popen[str]:
    """A process that holds ``file``, and does so by the time this returns."""
    process = subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_lock_of_a_killed_build_is_removed_at_once(tmp_path: Path) -> None:
    lock, said = tmp_path / "lock", []
    process = holder(_HOLD_OPEN, lock)
    process.kill()
    process.wait()
    _wait_for_foreign_build(lock, said.append)
    assert not lock.exists()
    assert said == [f"removed {lock}: a killed build had left it"]


def test_a_living_build_is_waited_for_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_build, "_QUIET_SECONDS", 0.2)
    lock, said = tmp_path / "lock", []
    process = holder(_HOLD_OPEN, lock)

    def hear(text: str) -> None:
        said.append(text)
        assert lock.exists()
        process.kill()
        process.wait()

    _wait_for_foreign_build(lock, hear)
    assert f"waiting for the process that holds {lock}" in said[0]
    assert not lock.exists()


def test_on_a_shared_file_system_a_lock_without_a_local_owner_gets_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_build, "_is_shared", lambda _: True)
    lock = tmp_path / "lock"
    lock.touch()
    monkeypatch.setattr(operator_build, "_FOREIGN_BUILD_SECONDS", 1.0)
    started = time.monotonic()
    _wait_for_foreign_build(lock, lambda _: None)
    assert time.monotonic() - started > 0.5
    assert not lock.exists()


def test_our_lock_dies_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_build, "_QUIET_SECONDS", 0.2)
    file, said = tmp_path / "owner", []
    process = holder(_HOLD_LOCK, file)

    def hear(text: str) -> None:
        said.append(text)
        process.send_signal(signal.SIGKILL)
        process.wait()

    with exclusive(file, hear):
        assert f"process {os.getpid()}" in file.read_text()
    owner = f"process {process.pid} on {os.uname().nodename}"
    assert said == [f"waiting for {owner}, which compiles DeepSpeed's operator"]


def test_a_rank_starts_over_the_lock_of_a_killed_build(tmp_path: Path) -> None:
    """The real start of a rank, with what an earlier one has compiled and a lock that nobody owns."""
    from torch.utils.cpp_extension import _get_build_directory

    built = Path(_get_build_directory("deepspeed_shm_comm", verbose=False))
    shutil.copytree(built, tmp_path / built.name)
    (tmp_path / built.name / "lock").touch()
    program = (
        "from unigrf_dist.ranks.runtime import finish, start\n"
        "start(60, print); print('started'); finish(0, together=True)"
    )
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert "started" in done.stdout, done.stderr
    assert "a killed build had left it" in done.stdout

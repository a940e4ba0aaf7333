"""Output of ``unigrf doctor``, and its exit status."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unigrf_dist.doctor import Check, Status, examine, run

FINE = Check("Packages", "torch", Status.OK, "2.13.0")
SLOW = Check("Machine", "/dev/shm", Status.NOTE, "0.50 GiB free [shm]", "--shm-size=8g")
BROKEN = Check("Compilers", "g++", Status.FAIL, "not found", "apt-get install g++")


def examined(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> int:
    monkeypatch.setattr("unigrf_dist.doctor.verdict.examine", lambda: list(checks))
    return run()


def test_training_can_run_with_notes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert examined(monkeypatch, FINE, SLOW) == 0
    shown = capsys.readouterr().out
    assert "0.50 GiB free [shm]" in shown  # brackets are not markup
    assert "/dev/shm: fix: --shm-size=8g\n" in shown
    assert shown.endswith("training can run on this machine\n")


def test_training_can_not_run_with_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examined(monkeypatch, FINE, SLOW, BROKEN) == 1
    shown = capsys.readouterr().out
    assert "g++: fix: apt-get install g++\n" in shown
    assert shown.endswith("training can't run on this machine: g++\n")


def test_this_machine_can_train() -> None:
    broken = {check.name: check.found for check in examine() if check.status is Status.FAIL}
    assert broken == {}


def test_the_doctor_loads_nothing_heavy_into_itself() -> None:
    script = "import sys, unigrf_dist.doctor; print({'torch', 'triton', 'deepspeed'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""Probes run in processes of their own; every outcome becomes a finding."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from unigrf_dist.doctor import trials
from unigrf_dist.doctor.check import Status
from unigrf_dist.doctor.trials import Outcome, run_probe


def answers(monkeypatch: pytest.MonkeyPatch, **outcomes: Outcome) -> None:
    """Replace the outcomes of the probes; those not named work."""
    monkeypatch.setattr(trials, "run_probe", lambda name: outcomes.get(name, Outcome(True, f"{name} works")))


def test_a_probe_that_works_says_what_it_found() -> None:
    assert run_probe("fbgemm") == Outcome(True, "operators load and compute")


def test_a_probe_that_raises_is_quoted() -> None:
    assert run_probe("astrology") == Outcome(False, "KeyError: 'astrology'")


def test_a_probe_that_hangs_is_given_up() -> None:
    assert run_probe("fbgemm", timeout_seconds=0.05) == Outcome(False, "no answer within 0 s")


def test_a_probe_that_waits_is_quoted_with_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waiter = tmp_path / "python"
    waiter.write_text("#!/bin/sh\necho waiting for process 7\nsleep 60\n")
    waiter.chmod(0o755)
    monkeypatch.setattr(trials.sys, "executable", str(waiter))
    outcome = run_probe("deepspeed", timeout_seconds=2)
    assert outcome == Outcome(False, "no answer within 2 s; it said last: waiting for process 7")


def test_deepspeed_starts_over_the_lock_of_a_killed_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch.utils.cpp_extension import _get_build_directory

    built = Path(_get_build_directory("deepspeed_shm_comm", verbose=False))
    shutil.copytree(built, tmp_path / built.name)
    (tmp_path / built.name / "lock").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    outcome = run_probe("deepspeed", timeout_seconds=300)
    assert outcome.worked, outcome.text


def test_a_probe_that_is_killed_is_told_by_its_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A library of the wrong build kills its process like this.
    killer = tmp_path / "python"
    killer.write_text("#!/bin/sh\nkill -SEGV $$\n")
    killer.chmod(0o755)
    monkeypatch.setattr(trials.sys, "executable", str(killer))
    assert run_probe("fbgemm") == Outcome(False, "its process ended with status -11")


def test_every_library_is_tried_and_nccl_only_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    cpu = [check.name for check in trials.check_libraries(on_cuda=False)]
    assert cpu == ["gloo", "deepspeed", "fbgemm, torchrec", "triton"]
    assert [check.name for check in trials.check_libraries(on_cuda=True)] == ["gloo", "nccl", *cpu[1:]]


@pytest.mark.parametrize(
    ("name", "row", "fix"),
    [
        ("gloo", 0, "export GLOO_SOCKET_IFNAME=lo"),
        ("nccl", 1, "make clean setup DEVICE=cuda"),
        ("deepspeed", 2, "fix the compilers above"),
        ("fbgemm", 3, "make clean setup"),
        ("triton", 4, "make clean setup"),
    ],
)
def test_a_failed_library_fails_the_machine(
    monkeypatch: pytest.MonkeyPatch, name: str, row: int, fix: str
) -> None:
    answers(monkeypatch, **{name: Outcome(False, "OSError: libcudart.so.13")})
    checks = trials.check_libraries(on_cuda=True)
    assert (checks[row].status, checks[row].found) == (Status.FAIL, "OSError: libcudart.so.13")
    assert checks[row].fix.startswith(fix)
    assert [check.status for check in checks if check is not checks[row]] == [Status.OK] * 4


def test_the_accelerator_is_cuda_where_torch_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, devices=Outcome(True, "8 x H100 80 GiB sm_90"))
    check, on_cuda = trials.check_device()
    assert (check.status, check.found, on_cuda) == (Status.OK, "8 x H100 80 GiB sm_90", True)


def test_a_machine_without_a_gpu_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, devices=Outcome(True, ""))
    monkeypatch.setattr(trials, "_smi_lists_a_gpu", lambda: False)
    check, on_cuda = trials.check_device()
    assert (check.status, check.fix, on_cuda) == (Status.OK, "", False)


def test_a_gpu_that_torch_does_not_see_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, devices=Outcome(True, ""))
    monkeypatch.setattr(trials, "_smi_lists_a_gpu", lambda: True)
    check, on_cuda = trials.check_device()
    assert (check.status, on_cuda) == (Status.NOTE, False)
    assert check.fix.startswith("make clean setup DEVICE=cuda")


def test_a_torch_that_does_not_load_fails_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, devices=Outcome(False, "ImportError: libc10.so"))
    check, on_cuda = trials.check_device()
    assert (check.status, check.found, on_cuda) == (Status.FAIL, "ImportError: libc10.so", False)

"""Memory, disk, shared memory, and the buffers that ended ranks leave there."""

from __future__ import annotations

import mmap
import os
from collections import namedtuple
from pathlib import Path

import pytest

from unigrf_dist.doctor import machine
from unigrf_dist.doctor.check import Check, Status

Usage = namedtuple("Usage", "total used free")
MIB = 2**20


def found() -> dict[str, Check]:
    return {check.name: check for check in machine.check_machine()}


def set_free(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: Usage(10**15, 0, num_bytes))


@pytest.mark.parametrize(
    ("free_mib", "status"), [(69, Status.FAIL), (71, Status.NOTE), (1023, Status.NOTE), (1025, Status.OK)]
)
def test_shared_memory_must_hold_a_rank_and_should_hold_more(
    monkeypatch: pytest.MonkeyPatch, free_mib: int, status: Status
) -> None:
    set_free(monkeypatch, free_mib * MIB)
    check = found()["/dev/shm"]
    assert check.status is status
    assert ("--shm-size" in check.fix) is (status is not Status.OK)


def test_no_shared_memory_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_SHARED", tmp_path / "absent")
    assert found()[str(tmp_path / "absent")].status is Status.FAIL


def test_a_full_disk_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    set_free(monkeypatch, 2047 * MIB)
    assert found()["disk"].status is Status.NOTE
    set_free(monkeypatch, 2049 * MIB)
    assert found()["disk"].status is Status.OK


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_container_limit", lambda: 3 * 2**30)
    check = found()["memory"]
    assert check.status is Status.NOTE
    assert check.found.startswith("3.0 GiB, ")


def test_buffers_of_ended_ranks_are_told_apart_from_those_in_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_SHARED", tmp_path)
    names = [f"deepspeed_allreduce_buffer_{os.getuid()}_127.0.0.1_29500_{rank}" for rank in (0, 1)]
    for name in (*names, "deepspeed_allreduce_buffer_99999_127.0.0.1_29500_0", "something_else"):
        (tmp_path / name).write_bytes(bytes(3 * MIB))
    with (tmp_path / names[0]).open("r+b") as file, mmap.mmap(file.fileno(), 0):
        check = found()["left buffers"]
    assert check.status is Status.NOTE
    assert check.found.startswith("1 DeepSpeed buffers of ended ranks hold 3 MiB")
    assert check.fix == f"rm {tmp_path / names[1]}"


def test_no_left_buffer_is_no_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_SHARED", tmp_path)
    assert "left buffers" not in found()

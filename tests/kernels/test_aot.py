"""The AOT resource check: what it counts and refuses, what its cache depends on, and its run for Hopper."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unigrf_kernels.aot import CompileCase, cache, run
from unigrf_kernels.aot import __main__ as program
from unigrf_kernels.aot.assembly import Usage, count_in_loops
from unigrf_kernels.aot.cache import compile_cached, fingerprint
from unigrf_kernels.aot.compiler import CompileReport, find_faults
from unigrf_kernels.aot.measured import is_excused, read_measured
from unigrf_kernels.aot.passed import read_passed, write_passed
from unigrf_kernels.aot.report import format_summary
from unigrf_kernels.aot.targets import TARGETS
from unigrf_kernels.ops.jagged_attention.triton_tile_tables import TABLES
from unigrf_kernels.ops.joint_loss.tile_tables import TABLES as LOSS_TABLES
from unigrf_kernels.ops.joint_loss.tile_tables import VECTOR_TILES

ROOT = Path(__file__).resolve().parents[2]
PASSED = ROOT / "kernels" / "docs" / "passed_on_sm_90.txt"
MEASURED = ROOT / "kernels" / "docs" / "measured_on_sm_90.txt"
HOPPER = TARGETS["sm_90"]
LOOP = (
    ".L_x_1:",
    "HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24",
    "@P0 BRA `(.L_x_1)",
    "HMMA.16816.F32 R4, R4, R8, R4",
)
CASE = CompileCase(
    label="some kernel",
    kernel=SimpleNamespace(__name__="kernel", fn=find_faults),
    signature={"x": "*bf16"},
    constexprs={"BLOCK": 64},
    num_warps=4,
    num_stages=2,
    expects_tensor_cores=True,
)


def test_shipped_configurations_are_clean_on_hopper() -> None:
    """No spill but those that were timed, no more shared memory than there is, matrix instructions where meant.

    What the list under version control doesn't know is compiled, which takes minutes when many kernels changed.
    """
    # Interpreted kernels, which the tests run, can't be compiled.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "kernels")
    arguments = [
        "--arch",
        "sm_90",
        "--passed",
        str(PASSED),
        "--measured",
        str(MEASURED),
        "--cache",
        str(ROOT / "build" / "aot"),
    ]
    command = [sys.executable, "-m", "unigrf_kernels.aot", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    faults = [line for line in done.stdout.splitlines() if "FAULT" in line]
    assert done.returncode == 0, "\n".join(faults) or done.stdout[-2000:] + done.stderr[-2000:]


def test_a_spill_is_excused_up_to_what_was_timed_and_no_other_fault(tmp_path: Path) -> None:
    file = tmp_path / "measured.txt"
    file.write_text("# timed\n56 sm_90 attention forward 64x64\n", encoding="utf-8")
    measured = read_measured(file)
    assert measured == {("sm_90", "attention forward 64x64"): 56}
    told = ("56 bytes of local memory per thread",)
    spills = CompileReport("attention forward 64x64", "sm_90", 4, 2, 255, 56, 10, 20, 3, 1.5, told, ())
    assert is_excused(spills, measured)
    assert not is_excused(replace(spills, local_bytes=64), measured)
    assert not is_excused(replace(spills, label="attention forward 64x32"), measured)
    assert not is_excused(replace(spills, arch="sm_80"), measured)
    assert not is_excused(replace(spills, faults=(*spills.faults, "no matrix instruction in a loop")), measured)
    assert not is_excused(replace(spills, faults=("no matrix instruction in a loop",)), measured)


def test_instructions_count_only_inside_loops() -> None:
    assert count_in_loops(LOOP, r"\bHGMMA\b") == 1
    assert count_in_loops(LOOP, r"\bHMMA\b") == 0


@pytest.mark.parametrize(
    ("usage", "shared", "fault"),
    [
        (Usage(128, 0, LOOP), 1000, None),
        (Usage(255, 8, LOOP), 1000, "local memory"),
        (Usage(128, 0, LOOP), HOPPER.shared_limit + 1, "shared memory"),
        (Usage(128, 0, LOOP[1:]), 1000, "no matrix instruction"),
        (Usage(128, 0, (*LOOP[:2], LOOP[3], LOOP[2])), 1000, "slower matrix instructions"),
    ],
)
def test_faults(usage: Usage, shared: int, fault: str | None) -> None:
    faults = find_faults(CASE, HOPPER, usage, shared)
    assert len(faults) == (fault is not None)
    assert all(str(fault) in text for text in faults)


CHANGES: list[dict[str, Any]] = [
    {"kernel": SimpleNamespace(__name__="other", fn=find_faults)},
    {"kernel": SimpleNamespace(__name__="kernel", fn=fingerprint)},
    {"signature": {"x": "*fp16"}},
    {"constexprs": {"BLOCK": 32}},
    {"num_warps": 8},
    {"num_stages": 3},
    {"expects_tensor_cores": False},
    {"divisible_by_16": frozenset({"x"})},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
def test_a_report_is_kept_until_anything_it_depends_on_changes(change: dict[str, Any]) -> None:
    assert fingerprint(CASE, HOPPER) == fingerprint(replace(CASE, label="renamed"), HOPPER)
    assert fingerprint(CASE, HOPPER) != fingerprint(replace(CASE, **change), HOPPER)
    assert fingerprint(CASE, HOPPER) != fingerprint(CASE, TARGETS["sm_100"])


def test_a_kept_report_is_the_one_that_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CompileReport("some kernel", "sm_90", 4, 2, 255, 8, 10, 20, 3, 1.5, ("8 bytes",), ("a remark",))
    monkeypatch.setattr(cache, "compile_for", lambda *_: made)
    assert compile_cached(CASE, HOPPER, tmp_path) == made
    monkeypatch.setattr(cache, "compile_for", lambda *_: pytest.fail("compiled again"))
    assert compile_cached(replace(CASE, label="renamed"), HOPPER, tmp_path) == replace(made, label="renamed")


def test_a_kernels_sources_are_all_files_it_imports_from() -> None:
    folder = ROOT / "kernels" / "unigrf_kernels" / "ops"
    names = ("hstu_layer/triton_gate.py", "dropout/triton_mask.py", "dropout/constants.py", "triton_rows.py")
    assert cache._sources(folder / names[0]) == {folder / name for name in names}


def test_summary_tells_the_most_of_each_kernel_and_width() -> None:
    def report(label: str, registers: int, matrix: int) -> CompileReport:
        return CompileReport(label, "sm_90", 4, 2, registers, 0, 1500, 20, matrix, 1.5, (), ())

    summary = format_summary(
        [
            report("some kernel bf16 D64 silu 32x32", 100, 8),
            report("some kernel bf16 D64 softmax 32x32", 120, 4),
            report("some kernel bf16 D128 silu 32x32", 90, 6),
            report("other fp32", 10, 0),
        ]
    )
    header, _, *rows = summary.splitlines()
    assert header.startswith("| sm_90 |")
    assert rows == [
        "| other fp32 | 1 | 10 | 0 | 2 | 0 |",
        "| some kernel bf16 | 3 | 64: 120, 128: 90 | 0 | 64: 2, 128: 2 | 4 |",
    ]


def test_what_did_not_compile_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = CompileReport("some kernel", "sm_90", 4, 2, 0, 0, 0, 20, 0, 1.5, ("does not compile",), ())
    monkeypatch.setattr(cache, "compile_for", lambda *_: failed)
    compile_cached(CASE, HOPPER, tmp_path)
    assert not list(tmp_path.iterdir())


def test_tile_tables_are_whole() -> None:
    """All kinds and widths for all chips; sums along diagonals need the keys of a tile to divide its queries."""
    assert {"sm_80", "sm_90", "sm_100"} <= TABLES.keys()
    for kinds in TABLES.values():
        assert kinds.keys() == {"half", "half biased", "single", "single biased"}
        for entries in kinds.values():
            assert entries.keys() == {16, 32, 64, 128, 256}
            assert all(query.rows % query.cols == 0 for _, _, query, _ in entries.values())


def test_tile_tables_of_the_loss_are_whole() -> None:
    assert {"sm_80", "sm_90", "sm_100", "cpu", "other"} == LOSS_TABLES.keys()
    for kinds in LOSS_TABLES.values():
        assert kinds.keys() == {"half", "single"}
        assert all(entries.keys() == VECTOR_TILES.keys() for entries in kinds.values())


def test_only_what_the_list_does_not_know_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed configuration is known; one of other tiles, or for another chip, is not."""
    file, wider = tmp_path / "passed.txt", replace(CASE, label="wider", constexprs={"BLOCK": 128})
    write_passed(file, [(fingerprint(CASE, HOPPER), HOPPER, CASE)])
    known = read_passed(file)
    monkeypatch.setattr(run, "discover_cases", lambda: (replace(CASE, label="renamed"), wider))
    assert run.select(["sm_90", "sm_100"], passed=known) == [(1, "sm_90"), (0, "sm_100"), (1, "sm_100")]
    assert run.select(["sm_90"]) == [(0, "sm_90"), (1, "sm_90")]


def test_a_list_with_faults_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = CompileReport("some kernel", "sm_90", 4, 2, 255, 8, 10, 20, 3, 1.5, ("8 bytes",), ())
    monkeypatch.setattr(program, "select", lambda *_, **__: [(0, "sm_90")])
    monkeypatch.setattr(program, "discover_cases", lambda: (CASE,))
    file = tmp_path / "passed.txt"
    for report, status in ((faulty, 1), (replace(faulty, faults=()), 0)):
        monkeypatch.setattr(program, "compile_all", lambda *_, made=report, **__: [made])
        assert program.main(["--arch", "sm_90", "--record", str(file)]) == status
        assert file.exists() == (status == 0)
    assert read_passed(file) == {fingerprint(CASE, HOPPER)}

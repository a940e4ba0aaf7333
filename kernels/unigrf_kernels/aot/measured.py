"""Tiles that spill registers and were the fastest all the same when they were timed on the chip.

A line is the most bytes of local memory of a thread that were timed, the chip and the label. A configuration of
that label that spills more, or has any other fault, does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .compiler import CompileReport

LocalBytes = Mapping[tuple[str, str], int]
"""Bytes of local memory by chip and label."""


def read_measured(file: Path) -> LocalBytes:
    """What ``file`` allows."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    rows = [line.split(maxsplit=2) for line in lines]
    return {(arch, label): int(local_bytes) for local_bytes, arch, label in rows}


def is_excused(report: CompileReport, measured: LocalBytes) -> bool:
    """Whether the report's only fault is local memory, and no more than was timed."""
    only_spills = len(report.faults) == 1 and "local memory" in report.faults[0]
    return only_spills and report.local_bytes <= measured.get((report.arch, report.label), 0)

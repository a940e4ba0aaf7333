"""The results as a plain text table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .compiler import CompileReport

_COLUMNS = ("configuration", "chip", "warps", "stages", "registers", "local B", "shared KiB", "matrix", "")


def format_table(reports: Sequence[CompileReport]) -> str:
    """One line per configuration and chip; faults stand at the end of their line.

    "matrix" counts the tensor-core instructions of the kind meant inside loops.
    """
    rows = [_COLUMNS, *(_row(report) for report in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = []
    for row in rows:
        name, *numbers, verdict = row
        cells = [name.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, verdict]).rstrip())
    return "\n".join(lines)


def to_json(reports: Sequence[CompileReport], versions: dict[str, str]) -> str:
    """All reports with the versions that made them."""
    document: dict[str, Any] = {"versions": versions, "reports": [asdict(report) for report in reports]}
    return json.dumps(document, indent=1)


def _row(report: CompileReport) -> tuple[str, ...]:
    return (
        report.label,
        report.arch,
        str(report.num_warps),
        str(report.num_stages),
        str(report.registers),
        str(report.local_bytes),
        f"{report.shared_bytes / 1024:.0f} / {report.shared_limit / 1024:.0f}",
        str(report.matrix_instructions),
        "; ".join((*(f"FAULT: {fault}" for fault in report.faults), *report.notes)),
    )

"""The results as a plain text table and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
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
        name, *numbers, remarks = row
        cells = [name.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, remarks]).rstrip())
    return "\n".join(lines)


def format_summary(reports: Sequence[CompileReport]) -> str:
    """A Markdown table for each chip, one line per kernel and dtype: the tables of `docs/resources.md`.

    A line holds the most that any variant takes, registers and shared memory by width; of matrix instructions the
    fewest.
    """
    families: dict[str, dict[tuple[str, str], dict[int, list[CompileReport]]]] = {}
    for report in reports:
        found = re.match(r"(.+?) (bf16|fp16|fp32)(?: D?(\d+))?", report.label)
        if found is None:
            raise ValueError(f"a label must name its kernel and dtype, got {report.label!r}")
        kernels = families.setdefault(report.arch, {})
        widths = kernels.setdefault((found[1], found[2]), {})
        widths.setdefault(int(found[3] or 0), []).append(report)
    lines = []
    for arch, kernels in families.items():
        lines += ["", f"| {arch} | variants | registers by width | spilled | shared KiB by width | matrix |"]
        lines.append("|---|---|---|---|---|---|")
        for (kernel, dtype), widths in sorted(kernels.items()):
            everything = [report for group in widths.values() for report in group]
            cells = (
                f"{kernel} {dtype}",
                len(everything),
                _by_width((width, max(report.registers for report in group)) for width, group in widths.items()),
                max(report.local_bytes for report in everything),
                _by_width(
                    (width, -(-max(report.shared_bytes for report in group) // 1024))
                    for width, group in widths.items()
                ),
                min(report.matrix_instructions for report in everything),
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines[1:])


def _by_width(numbers: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{width}: {number}" if width else str(number) for width, number in sorted(numbers))


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

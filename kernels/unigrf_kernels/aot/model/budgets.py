"""Budgets: what a shipped kernel may cost by the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .measure import KernelModel

Budgets = Mapping[tuple[str, str], tuple[float, float, float]]
"""By chip and kernel, the most of each: repeats, instructions for each score, predicted clocks for 1000 scores."""


def kernel_name(label: str) -> str:
    """The label less the tile, which a schedule may change."""
    return re.sub(r" \d+x\d+$", "", label)


def read_budgets(file: Path) -> Budgets:
    """Budgets from lines of chip, repeats, instructions, clocks and kernel; `#` begins a comment."""
    budgets = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            arch, repeats, instructions, clocks, kernel = line.split(maxsplit=4)
            budgets[arch, kernel] = float(repeats), float(instructions), float(clocks)
    return budgets


def over_budget(models: Iterable[KernelModel], budgets: Budgets) -> list[str]:
    """One sentence for each budget that is missing or exceeded."""
    faults = []
    for model in models:
        name = f"{model.arch} {model.label}"
        budget = budgets.get((model.arch, kernel_name(model.label)))
        if budget is None:
            faults.append(f"{name}: has no budget, add a line for it")
            continue
        if model.repeats > budget[0]:
            faults.append(f"{name}: computes the same numbers {model.repeats:g} times: more rows or fewer warps")
        if model.instructions > budget[1]:
            faults.append(f"{name}: {model.instructions:.2f} instructions for each score, budget {budget[1]:g}")
        if model.clocks_per_1000 > budget[2]:
            faults.append(f"{name}: {model.clocks_per_1000:.1f} clocks for 1000 scores, budget {budget[2]:g}")
    return faults


def format_budgets(models: Sequence[KernelModel]) -> str:
    """Budgets with 3 % to spare over ``models``, for a first file or after a gain."""
    lines = [
        "# Chip; how often the same numbers may be computed; most instructions for each score; most predicted",
        "# clocks for 1000 scores; kernel. Read by `python -m unigrf_kernels.aot --model --budgets`.",
    ]
    for model in sorted(models, key=lambda each: (each.arch, each.label)):
        numbers = f"{model.repeats:g} {model.instructions * 1.03:7.2f} {model.clocks_per_1000 * 1.03:8.1f}"
        lines.append(f"{model.arch} {numbers} {kernel_name(model.label)}")
    return "\n".join(lines) + "\n"

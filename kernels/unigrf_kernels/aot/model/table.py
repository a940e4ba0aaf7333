"""The model's table: one line for each main loop, and the speeds of whole directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .chips import CHIPS
from .measure import KernelModel

_COLUMNS = (
    "kernel",
    "tile, warps",
    "blocks",
    "instr/score",
    "special",
    "integer",
    "float",
    "shared",
    "barriers",
    "products",
    "repeats",
    "bound by",
    "clocks/1000",
    "predicted TFLOP/s",
)


def format_models(models: Iterable[KernelModel]) -> str:
    """Markdown tables, one for each chip; counts are of one warp and tile."""
    by_arch: dict[str, list[KernelModel]] = {}
    for model in models:
        by_arch.setdefault(model.arch, []).append(model)
    lines: list[str] = []
    for arch, group in by_arch.items():
        lines += ["", f"### {arch}", "", _row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
        for model in group:
            lines += [_loop_row(model, number) for number in range(len(model.loops))]
        lines += ["", *_directions(arch, group)]
    return "\n".join(lines[1:])


def _loop_row(model: KernelModel, number: int) -> str:
    loop = model.loops[number]
    sweep = f", sweep {number + 1}" if len(model.loops) > 1 else ""
    cells = (
        re.sub(r" \d+x\d+$", "", model.label) + sweep,
        f"{loop.rows}x{loop.columns}, {loop.warps}",
        loop.blocks,
        loop.instructions,
        loop.special,
        loop.integer,
        loop.floating,
        loop.shared,
        loop.barriers,
        loop.shapes,
        f"{loop.repeats:g}",
        loop.bound,
        loop.clocks_per_1000,
        loop.tflops,
    )
    return _row(map(str, cells))


def _directions(arch: str, models: Sequence[KernelModel]) -> list[str]:
    """Predicted TFLOP/s of attention by the benchmark's convention: 4 D and 10 D for each score."""
    clocks: dict[str, dict[str, float]] = {}
    for model in models:
        found = re.match(r"attention (forward|key gradient|query gradient) (.+?) \d+x\d+$", model.label)
        if found:
            clocks.setdefault(found[2], {})[found[1]] = model.clocks_per_1000
    if not clocks:
        return []
    lines = [_row(("attention", "predicted forward TFLOP/s", "predicted backward TFLOP/s")), _row(["---"] * 3)]
    chip = CHIPS[arch]
    for name, kernels in clocks.items():
        width = int(re.search(r"D(\d+)", name)[1])  # type: ignore[index]
        speed = width * 1000 * chip.processors * chip.clock / 1e12
        forward = f"{4 * speed / kernels['forward']:.0f}" if "forward" in kernels else ""
        gradients = [kernels.get(f"{operand} gradient") for operand in ("key", "query")]
        backward = f"{10 * speed / sum(gradients):.0f}" if all(gradients) else ""  # type: ignore[arg-type]
        lines.append(_row((name, forward, backward)))
    return lines


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"

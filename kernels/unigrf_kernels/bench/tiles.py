"""``python -m unigrf_kernels.bench.tiles``: each attention kernel at other tiles than the shipped, timed on a GPU.

One kernel is changed at a time, the others run as shipped. A tile that this chip cannot hold is listed with its
error.
Compilation takes most of the time, so all variants are compiled first, by one process for each core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from unigrf_kernels.bench.cases.jagged_attention_inputs import BenchCase, BenchInputs
from unigrf_kernels.bench.report import environment
from unigrf_kernels.ops.jagged_attention import launch
from unigrf_kernels.ops.jagged_attention.autograd import triton_attention
from unigrf_kernels.ops.jagged_attention.triton_schedule import Schedule, architecture, choose_schedule
from unigrf_kernels.ops.jagged_attention.triton_tile_tables import Tile

_KERNELS = {
    "forward": "forward_kernel",
    "key_gradient": "key_gradient_kernel",
    "query_gradient": "query_gradient_kernel",
}
_ROWS, _COLS, _WARPS, _STAGES = (16, 32, 64, 128), (32, 64, 128), (4, 8), (1, 2, 3)
_RUNS = 5


@dataclass(frozen=True)
class Variant:
    """One kernel at one tile.

    Attributes:
        width: width of a head.
        biased: whether both biases are on.
        kernel: name of the changed kernel, a field of `Schedule`; empty for all as shipped.
        tile: its tile.
    """

    width: int
    biased: bool
    kernel: str = ""
    tile: Tile | None = None

    def schedule(self, arch: str) -> Schedule:
        """The shipped schedule with the changed tile."""
        shipped = choose_schedule(
            arch, torch.bfloat16, self.width, position_bias=self.biased, time_bias=self.biased
        )
        changed: dict[str, Any] = {self.kernel: self.tile} if self.kernel else {}
        return replace(shipped, **changed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, time, print the fastest tiles; 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m unigrf_kernels.bench.tiles", description="Tiles, timed.")
    parser.add_argument("--widths", default="64,128,256", help="widths of a head, separated by commas")
    parser.add_argument("--json", type=Path, required=True, help="file of all times")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("error: tiles are timed on a GPU, and torch sees none", file=sys.stderr)
        return 2
    groups = [
        list(variants(int(width), biased)) for width in options.widths.split(",") for biased in (False, True)
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        errors = dict(pool.map(_compile, [variant for group in groups for variant in group], chunksize=4))
    records: list[dict[str, Any]] = []
    for group in groups:
        for variant in group:
            records.append({**asdict(variant), **_times(variant, errors[variant])})
        text = json.dumps({"environment": environment(torch.device("cuda")), "tiles": records}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
        _print_fastest(records, group[0])
    return 0


def variants(width: int, biased: bool) -> Iterator[Variant]:
    """The shipped schedule, then each kernel at each tile that it may have."""
    yield Variant(width, biased)
    for kernel in _KERNELS:
        for tile in (Tile(*each) for each in product(_ROWS, _COLS, _WARPS, _STAGES)):
            # A warp without rows of its own computes what another does.
            if (tile.cols if kernel == "key_gradient" else tile.rows) < 16 * tile.num_warps:
                continue
            if kernel != "query_gradient" or tile.cols <= tile.rows:
                yield Variant(width, biased, kernel, tile)


def run(variant: Variant, inputs: BenchInputs) -> list[Tensor]:
    """Output and gradients, in Triton with the variant's schedule."""
    plan = inputs.plan
    out = triton_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        plan.offsets,
        activation=inputs.options["activation"],
        scale=inputs.options["scale"],
        scaling_length=inputs.options["scaling_length"],
        num_candidates=None,
        window=None,
        position_bias=inputs.options.get("position_bias"),
        time_bias=inputs.options.get("time_bias"),
        query_times=plan.asked,
        key_times=plan.happened,
        max_length=plan.max_length,
        schedule=variant.schedule(architecture(inputs.q.device)),
    )
    return [out.detach(), *torch.autograd.grad(out, inputs.leaves, inputs.grad_out)]


@lru_cache(maxsize=1)
def _inputs(width: int, biased: bool) -> BenchInputs:
    biases: dict[str, Any] = {"num_positions": 1024, "num_buckets": 64} if biased else {}
    return BenchCase("tiles", (4096,) * 32, 4, width, **biases).inputs(torch.bfloat16, "cuda")


def _compile(variant: Variant) -> tuple[Variant, str]:
    """Compile into the folder that all processes share; returns why it cannot be."""
    try:
        run(variant, _inputs(variant.width, variant.biased))
        torch.cuda.synchronize()
    except Exception as error:  # whatever the compiler raises stands beside the tile
        return variant, f"{type(error).__name__}: {error}"[:200]
    return variant, ""


def _times(variant: Variant, error: str) -> dict[str, Any]:
    """Milliseconds of each kernel, median of several runs; or the error."""
    if error:
        return {"error": error}
    inputs = _inputs(variant.width, variant.biased)
    spans: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
    real = launch.launch_kernel

    def timed(kernel: Any, *arguments: Any, **options: Any) -> None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        real(kernel, *arguments, **options)
        end.record()
        spans.append((kernel.__name__, begin, end))

    run(variant, inputs)
    launch.launch_kernel = timed
    try:
        for _ in range(_RUNS):
            run(variant, inputs)
        torch.cuda.synchronize()
    finally:
        launch.launch_kernel = real
    names = {name for name, _, _ in spans}
    return {
        "milliseconds": {
            name: median(begin.elapsed_time(end) for each, begin, end in spans if each == name) for name in names
        }
    }


def _print_fastest(records: list[dict[str, Any]], shipped: Variant) -> None:
    group = [
        each
        for each in records
        if (each["width"], each["biased"]) == (shipped.width, shipped.biased) and "milliseconds" in each
    ]
    for kernel, name in _KERNELS.items():
        mine = [each for each in group if each["kernel"] in ("", kernel)]
        now, best = mine[0], min(mine, key=lambda each: each["milliseconds"][name])
        print(
            f"D{shipped.width}{' biased' if shipped.biased else ''} {kernel}: shipped "
            f"{now['milliseconds'][name]:.3f} ms, fastest {best['milliseconds'][name]:.3f} ms {best['tile'] or ''}"
        )


if __name__ == "__main__":
    sys.exit(main())

"""From the counts of a loop to the unit that bounds it and a predicted speed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .chips import Chip
from .loops import Loop
from .products import Products, clocks

# Between dependent parts of an iteration (product, activation, product) a block waits: for a barrier, and once for
# the latencies of products and loads. Rounded from published microbenchmarks; only other blocks fill the time.
_BARRIER_CLOCKS = 30
_LATENCY_CLOCKS = 150


@dataclass(frozen=True)
class Prediction:
    """One main loop of one kernel on one chip; counts are of one warp and iteration.

    Attributes:
        rows: queries (pairs) of the tile.
        columns: keys (negatives) of the tile.
        warps: warps of a block.
        blocks: blocks that a multiprocessor holds.
        instructions: instructions of all warps for each score of the tile, in lanes (32 x warps / scores).
        special: special-function instructions.
        integer: integer, compare, select and multiply instructions.
        floating: fp32 instructions.
        shared: instructions through shared memory.
        barriers: barriers and waits.
        shapes: matrix products, as M x N x K.
        repeats: how many times the same numbers are computed.
        bound: the unit that is busy longest, or "latency" where too few blocks hide the waits.
        clocks_per_1000: predicted clocks of a multiprocessor for 1000 scores.
        tflops: predicted TFLOP/s of the products that must be computed.
    """

    rows: int
    columns: int
    warps: int
    blocks: int
    instructions: float
    special: int
    integer: int
    floating: int
    shared: int
    barriers: int
    shapes: str
    repeats: float
    bound: str
    clocks_per_1000: float
    tflops: float


def predict(
    loop: Loop, products: Products, chip: Chip, arch: str, *, tile: tuple[int, int], warps: int, blocks: int
) -> Prediction:
    """Predict one main loop.

    Args:
        loop: what one warp issues for one tile.
        products: the tile's matrix products.
        chip: issue rates.
        arch: the chip's name.
        tile: rows and columns of scores.
        warps: warps of a block.
        blocks: blocks that a multiprocessor holds.
    """
    busy = {unit: clock * warps for unit, clock in _clocks_of_warp(loop, chip).items()}
    tensor = sum(
        clocks(product, chip.tensor_flops, chip.shared_bytes_per_clock, arch) for product in products.products
    )
    alone = tensor + max(busy.values()) + loop.barriers * _BARRIER_CLOCKS + _LATENCY_CLOCKS
    busy["tensor cores"] = tensor
    busy["latency"] = alone / blocks
    bound = max(busy, key=lambda unit: busy[unit])
    scores = tile[0] * tile[1]
    flops = sum(product.flops for product in products.products)
    return Prediction(
        rows=tile[0],
        columns=tile[1],
        warps=warps,
        blocks=blocks,
        instructions=round(loop.instructions * 32 * warps / scores, 2),
        special=loop.units["special"],
        integer=loop.units["integer"] + loop.units["multiply"],
        floating=loop.units["float"] + loop.units["float2"],
        shared=loop.units["shared"],
        barriers=loop.barriers,
        shapes=" ".join(
            f"{shape}*{count}" if count > 1 else shape
            for shape, count in Counter(
                f"{product.rows}x{product.columns}x{product.depth}" for product in products.products
            ).items()
        ),
        repeats=products.repeats,
        bound=bound,
        clocks_per_1000=round(1000 * busy[bound] / scores, 1),
        tflops=round(flops / busy[bound] * chip.processors * chip.clock / 1e12, 1),
    )


def _clocks_of_warp(loop: Loop, chip: Chip) -> dict[str, float]:
    """Clocks for which one warp's iteration keeps each unit of the multiprocessor busy."""
    units = loop.units
    return {
        "issue": loop.instructions / 4,
        "special functions": units["special"] * 32 / chip.special_lanes,
        "integer": units["integer"] * 32 / chip.integer_lanes,
        "float": (units["float"] + units["float2"]) * 32 / chip.float_lanes
        + units["multiply"] * 32 / chip.integer_lanes,
        "shared memory": (loop.shared_bytes + 128 * units["global"]) / chip.shared_bytes_per_clock,
    }


def resident_blocks(chip: Chip, *, registers: int, warps: int, shared_bytes: int) -> int:
    """Blocks that the registers, the shared memory and the 64 warps of a multiprocessor allow."""
    allocated = -(-registers // 8) * 8 * 32 * warps
    by_shared = chip.shared_bytes // (shared_bytes + 1024)
    return max(1, min(chip.registers // allocated, by_shared, 64 // warps))

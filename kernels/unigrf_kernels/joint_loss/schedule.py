"""Tiles of the Triton kernels: width, dtype and architecture in, block sizes out.

The tables hold what compiles without spilled registers within the shared memory of each architecture (see
`python -m unigrf_kernels.aot`). They were chosen by register and memory counts and have not been timed yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

MAX_WIDTH, MAX_TASKS = 512, 16
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Tile:
    """Block sizes of one kernel.

    Attributes:
        entries: retrieval or ranking entries per tile.
        columns: negatives per tile; unused where a kernel has none.
        num_warps: warps per program.
        num_stages: depth of the software pipeline.
    """

    entries: int
    columns: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class Schedule:
    """How one call runs.

    Attributes:
        stream: tile of `stream_kernel`.
        negatives: tile of `negative_gradient_kernel`.
        own: tile of the same kernel for users' own negatives.
        rows: tile of the kernels that work on rows of vectors alone.
        ranking: tile of `ranking_kernel`.
        programs: how many programs a launch should have at least, where splitting can give them.
        precision: of fp32 products.
    """

    stream: Tile
    negatives: Tile
    own: Tile
    rows: Tile
    ranking: Tile
    programs: int
    precision: str


def block_width(width: int) -> int:
    """The power of two that holds ``width``, at least 16 as matrix instructions ask."""
    return max(16, 1 << (width - 1).bit_length())


def choose_schedule(arch: str, dtype: torch.dtype, width: int, *, num_processors: int) -> Schedule:
    """The shipped schedule.

    Args:
        arch: as `architecture` names it.
        dtype: of the vectors.
        width: ``D``.
        num_processors: of the device; decides how far work is split, and so the order of sums.
    """
    block = block_width(width)
    if dtype == torch.float32:
        stream, negatives, own, ranking = _FP32[block]
        has_tensor_cores = arch.startswith("sm_") and block <= _LAST_SPLIT_WIDTH
        precision = "tf32x3" if has_tensor_cores else "ieee"
    else:
        stream, negatives, own, ranking = _HALF[block]
        precision = "ieee"
    return Schedule(
        stream=stream,
        negatives=negatives,
        own=own,
        rows=_ROWS[block],
        ranking=ranking,
        programs=2 * num_processors,
        precision=precision,
    )


# By block width: stream, negatives, own, ranking.
_HALF = {
    16: (Tile(128, 128, 8, 3), Tile(128, 128, 8, 3), Tile(32, 16, 4, 2), Tile(64, 16, 4, 2)),
    32: (Tile(128, 128, 8, 3), Tile(128, 128, 8, 3), Tile(32, 16, 4, 2), Tile(64, 16, 4, 2)),
    64: (Tile(128, 128, 8, 3), Tile(128, 128, 8, 3), Tile(32, 16, 4, 2), Tile(64, 16, 4, 2)),
    128: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 3), Tile(32, 16, 4, 2), Tile(64, 16, 4, 2)),
    256: (Tile(128, 64, 8, 2), Tile(64, 128, 8, 2), Tile(32, 16, 4, 2), Tile(16, 16, 4, 2)),
    512: (Tile(64, 32, 8, 2), Tile(32, 64, 8, 2), Tile(32, 16, 4, 2), Tile(16, 16, 4, 2)),
}
_ROWS = {
    16: Tile(32, 0, 4, 1),
    32: Tile(32, 0, 4, 1),
    64: Tile(16, 0, 4, 1),
    128: Tile(16, 0, 4, 1),
    256: Tile(8, 0, 4, 1),
    512: Tile(4, 0, 8, 1),
}
# Three products of 19-bit halves give fp32's accuracy on tensor cores, but the halves of a wide tile do not fit
# the registers: from 256 on, products run on the ordinary units in small tiles.
_LAST_SPLIT_WIDTH = 128
_FP32 = {
    16: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), Tile(16, 16, 4, 2), Tile(32, 16, 4, 2)),
    32: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), Tile(16, 16, 4, 2), Tile(32, 16, 4, 2)),
    64: (Tile(64, 32, 4, 2), Tile(32, 64, 4, 2), Tile(16, 16, 4, 2), Tile(32, 16, 4, 2)),
    128: (Tile(32, 64, 8, 1), Tile(64, 32, 8, 1), Tile(16, 16, 4, 2), Tile(16, 16, 4, 2)),
    256: (Tile(16, 16, 4, 2), Tile(16, 16, 4, 2), Tile(16, 16, 4, 2), Tile(16, 16, 8, 2)),
    512: (Tile(16, 16, 8, 1), Tile(16, 16, 8, 2), Tile(16, 16, 8, 2), Tile(16, 16, 8, 1)),
}


def architecture(device: torch.device) -> str:
    """Name of the device's architecture as the offline compiler knows it; the interpreter counts as ``cpu``."""
    if device.type != "cuda":
        return "cpu"
    properties = torch.cuda.get_device_properties(device)
    return "gfx" if torch.version.hip else f"sm_{properties.major}{properties.minor}"


def num_processors(device: torch.device) -> int:
    """Multiprocessors of the device; the interpreter runs one program at a time."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count

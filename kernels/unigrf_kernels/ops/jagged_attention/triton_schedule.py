"""How one call of the Triton attention kernels runs: shape and architecture in, block sizes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch

from .triton_tile_tables import TABLES, Tile

PRECISIONS = ("ieee", "tf32")


@dataclass(frozen=True)
class Schedule:
    """How one call runs; it never changes what is computed, except `precision`.

    Attributes:
        forward: tile of the forward kernel.
        key_gradient: tile of the kernel for keys and values.
        query_gradient: tile of the kernel for queries and bias tables; its keys divide its queries.
        split_key_gradient: sum the gradients of values and keys one after the other, see `key_gradient_kernel`.
        precision: precision of float32 products: "ieee", or "tf32" for tensor cores with 10 bits of mantissa.
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
    """The shipped schedule. `arch` as `architecture` names it; one that has no tables gets the smallest tiles."""
    kind = "single" if dtype == torch.float32 else "half"
    if position_bias or time_bias:
        kind += " biased"
    block = max(16, 1 << (head_dim - 1).bit_length())
    tables = TABLES.get(arch, TABLES["other"])
    forward, key_gradient, query_gradient, split = tables[kind][block]
    return Schedule(forward, key_gradient, query_gradient, split_key_gradient=split)


def architecture(device: torch.device) -> str:
    """The device's architecture by its name in the tile tables; the interpreter runs Hopper's tiles."""
    if device.type != "cuda":
        return "sm_90"
    properties = torch.cuda.get_device_properties(device)
    return "gfx" if torch.version.hip else f"sm_{properties.major}{properties.minor}"

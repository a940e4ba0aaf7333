"""Tiles of the kernels that hold whole rows in registers: the layer operators.

They are bound by memory, so a tile only has to be large enough to keep many loads in flight and small enough
not to spill; not timed on a GPU yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

MAX_WIDTH = 8192
"""Widest row: twice that spilled registers in the gradients, even with 16 warps."""

# 16 elements per thread: with 32 the gradients took 168 registers, which leaves 12 warps on a multiprocessor.
_TILE_ELEMENTS = 2048
_ELEMENTS_PER_WARP = 512
_PROGRAMS_PER_MULTIPROCESSOR = 4


@dataclass(frozen=True)
class RowTile:
    """Rows that one program holds.

    Attributes:
        rows: rows per tile.
        columns: the width, rounded up to a power of two.
        num_warps: warps per program.
    """

    rows: int
    columns: int
    num_warps: int

    def count(self, num_rows: int) -> int:
        """Tiles that cover ``num_rows``."""
        return -(-num_rows // self.rows)


def choose_row_tile(width: int) -> RowTile:
    """The tile for rows of ``width`` elements, at most ``MAX_WIDTH``."""
    columns = max(16, 1 << (width - 1).bit_length())
    rows = max(1, _TILE_ELEMENTS // columns)
    return RowTile(rows, columns, min(16, max(4, rows * columns // _ELEMENTS_PER_WARP)))


def num_looping_programs(tile: RowTile, num_rows: int, device: torch.device) -> int:
    """Programs of a kernel that adds up columns over many tiles: each leaves one row of partial sums.

    Depends on the device alone, so that the order of additions, and with it every bit, is the same on repetition.
    """
    if device.type == "cuda":
        most = _PROGRAMS_PER_MULTIPROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
    else:
        most = _PROGRAMS_PER_MULTIPROCESSOR
    return min(most, tile.count(num_rows))

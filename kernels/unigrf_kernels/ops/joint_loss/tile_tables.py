"""Block sizes of the Triton kernels for each chip.

The largest tiles found that compile without spilled registers and within the chip's shared memory (see
`python -m unigrf_kernels.aot`). They were chosen by those counts and have not been timed yet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """Block sizes of one kernel.

    Attributes:
        rows: query-positive pairs, ranking examples or vectors per tile.
        columns: negatives per tile; unused where a kernel has none.
        num_warps: warps per program.
        num_stages: depth of the software pipeline.
    """

    rows: int
    columns: int
    num_warps: int
    num_stages: int


Entry = tuple[Tile, Tile, Tile, Tile]
"""Tiles of the stream, the negatives' gradient, the per-user negatives' gradient, and the ranking kernel."""

Table = dict[str, dict[int, Entry]]
"""By "half" (16 bits) or "single" (fp32), then width."""

_USER, _USER_SINGLE, _USER_WIDEST = Tile(32, 16, 4, 2), Tile(16, 16, 4, 2), Tile(16, 16, 8, 2)
_SM80: Table = {
    "half": {
        16: (Tile(128, 128, 8, 3), Tile(128, 128, 8, 3), _USER, Tile(64, 16, 4, 2)),
        32: (Tile(128, 128, 8, 3), Tile(128, 128, 8, 3), _USER, Tile(64, 16, 4, 2)),
        64: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 3), _USER, Tile(64, 16, 4, 2)),
        128: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 3), _USER, Tile(64, 16, 8, 2)),
        256: (Tile(64, 64, 8, 3), Tile(64, 64, 8, 3), _USER, Tile(16, 16, 4, 2)),
        512: (Tile(32, 64, 8, 2), Tile(32, 64, 8, 2), _USER, Tile(16, 16, 4, 2)),
    },
    "single": {
        16: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), _USER_SINGLE, Tile(32, 16, 4, 2)),
        32: (Tile(64, 32, 8, 2), Tile(64, 64, 4, 2), _USER_SINGLE, Tile(32, 16, 4, 2)),
        64: (Tile(32, 32, 4, 2), Tile(32, 32, 4, 2), _USER_SINGLE, Tile(32, 16, 4, 2)),
        128: (Tile(32, 64, 8, 1), Tile(64, 32, 8, 1), _USER_SINGLE, Tile(16, 16, 4, 2)),
        256: (Tile(16, 16, 4, 2), Tile(16, 16, 4, 2), _USER_SINGLE, Tile(16, 16, 8, 2)),
        512: (Tile(16, 16, 8, 1), Tile(16, 16, 8, 2), _USER_WIDEST, Tile(16, 16, 8, 1)),
    },
}
_SM90: Table = {
    "half": {
        16: (Tile(128, 128, 8, 3), Tile(128, 128, 8, 3), _USER, Tile(64, 16, 4, 2)),
        32: (Tile(128, 128, 8, 3), Tile(128, 128, 8, 3), _USER, Tile(64, 16, 4, 2)),
        64: (Tile(128, 128, 8, 3), Tile(128, 128, 8, 3), _USER, Tile(64, 16, 4, 2)),
        128: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 3), _USER, Tile(64, 16, 8, 2)),
        256: (Tile(128, 64, 8, 2), Tile(64, 128, 8, 2), _USER, Tile(16, 16, 4, 2)),
        512: (Tile(64, 32, 8, 2), Tile(32, 64, 8, 2), _USER, Tile(16, 16, 4, 2)),
    },
    "single": {
        16: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), _USER_SINGLE, Tile(32, 16, 4, 2)),
        32: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), _USER_SINGLE, Tile(32, 16, 4, 2)),
        64: (Tile(64, 32, 4, 2), Tile(32, 64, 4, 2), _USER_SINGLE, Tile(32, 16, 4, 2)),
        128: (Tile(32, 64, 8, 1), Tile(32, 32, 8, 2), _USER_SINGLE, Tile(16, 16, 4, 2)),
        256: (Tile(16, 16, 4, 2), Tile(16, 16, 4, 2), _USER_SINGLE, Tile(16, 16, 8, 2)),
        512: (Tile(16, 16, 8, 1), Tile(16, 16, 8, 2), _USER_WIDEST, Tile(16, 16, 8, 1)),
    },
}
_SM100: Table = {
    "half": {
        16: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 3), _USER, Tile(64, 16, 4, 2)),
        32: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 3), _USER, Tile(64, 16, 4, 2)),
        64: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 3), _USER, Tile(64, 16, 4, 2)),
        128: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 3), _USER, Tile(64, 16, 8, 2)),
        256: (Tile(64, 64, 8, 3), Tile(64, 128, 8, 2), _USER, Tile(16, 16, 4, 2)),
        512: (Tile(64, 32, 8, 2), Tile(32, 64, 8, 2), _USER, Tile(16, 16, 4, 2)),
    },
    "single": {
        16: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), _USER_SINGLE, Tile(32, 16, 4, 2)),
        32: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), _USER_SINGLE, Tile(32, 16, 4, 2)),
        64: (Tile(64, 32, 8, 2), Tile(32, 64, 8, 2), _USER_SINGLE, Tile(32, 16, 4, 2)),
        128: (Tile(32, 64, 8, 1), Tile(32, 32, 8, 2), _USER_SINGLE, Tile(16, 16, 4, 2)),
        256: (Tile(16, 16, 4, 2), Tile(16, 16, 4, 2), _USER_SINGLE, Tile(16, 16, 8, 2)),
        512: (Tile(32, 16, 4, 2), Tile(16, 16, 8, 2), _USER_WIDEST, Tile(16, 16, 8, 1)),
    },
}
# Other chips were not checked; the smallest tiles ask least of any.
_SMALLEST = (Tile(16, 16, 4, 1), Tile(16, 16, 4, 1), Tile(16, 16, 4, 1), Tile(16, 16, 4, 1))
_WIDTHS = (16, 32, 64, 128, 256, 512)

TABLES: dict[str, Table] = {
    "sm_80": _SM80,
    "sm_90": _SM90,
    "sm_100": _SM100,
    "cpu": _SM90,  # the interpreter
    "other": {kind: dict.fromkeys(_WIDTHS, _SMALLEST) for kind in _SM90},
}

VECTOR_TILES = {
    16: Tile(32, 0, 4, 1),
    32: Tile(32, 0, 4, 1),
    64: Tile(16, 0, 4, 1),
    128: Tile(16, 0, 4, 1),
    256: Tile(8, 0, 4, 1),
    512: Tile(4, 0, 8, 1),
}
"""Tiles of the kernels that work on vectors row by row, the same for all chips, by width."""

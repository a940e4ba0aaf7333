"""Block sizes of the Triton attention kernels for each chip.

On sm_90 and for 16-bit operands, the fastest of some 200 on an H100 (`docs/measured.md`). Elsewhere the largest
tiles found that compile without spilled registers, within the chip's shared memory and, for 16-bit operands, onto
its matrix instructions, in every variant of `aot/cases/jagged_attention.py`; those have not been timed yet.
"""

from __future__ import annotations

from dataclasses import dataclass


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


Entry = tuple[Tile, Tile, Tile, bool]
"""Tiles of the forward, key gradient and query gradient kernels; whether the key gradient is split."""

# Without matrix instructions it is registers, not the shared memory, that are scarce, and the chips differ little.
_SINGLE = {
    16: (Tile(16, 32, 8, 1), Tile(16, 16, 8, 1), Tile(32, 32, 8, 2), False),
    32: (Tile(32, 16, 8, 1), Tile(16, 16, 8, 1), Tile(32, 32, 8, 2), False),
    64: (Tile(32, 16, 8, 1), Tile(16, 32, 8, 1), Tile(32, 32, 8, 2), False),
    128: (Tile(16, 16, 4, 1), Tile(16, 32, 8, 1), Tile(16, 16, 8, 1), False),
    256: (Tile(16, 16, 8, 1), Tile(16, 16, 16, 1), Tile(16, 16, 8, 1), False),
}


def _with_key_gradients(entries: dict[int, Entry], tiles: dict[int, Tile]) -> dict[int, Entry]:
    """``entries`` with other tiles of the key gradient at some widths."""
    changed = {width: (entries[width][0], tile, *entries[width][2:]) for width, tile in tiles.items()}
    return entries | changed


_SM80 = {
    "half": {
        16: (Tile(128, 64, 8, 2), Tile(32, 64, 4, 2), Tile(128, 64, 8, 2), False),
        32: (Tile(128, 64, 8, 2), Tile(32, 64, 4, 2), Tile(64, 32, 8, 2), False),
        64: (Tile(128, 64, 8, 2), Tile(32, 64, 4, 2), Tile(128, 64, 8, 2), False),
        128: (Tile(128, 64, 8, 2), Tile(32, 64, 8, 2), Tile(64, 32, 8, 2), False),
        256: (Tile(64, 32, 8, 2), Tile(32, 32, 8, 2), Tile(64, 64, 8, 1), False),
    },
    "half biased": {
        16: (Tile(64, 64, 8, 2), Tile(32, 32, 8, 2), Tile(64, 64, 8, 2), False),
        32: (Tile(64, 64, 8, 2), Tile(32, 32, 4, 2), Tile(64, 32, 8, 2), False),
        64: (Tile(64, 64, 8, 2), Tile(32, 32, 4, 2), Tile(64, 64, 8, 2), False),
        128: (Tile(64, 32, 8, 2), Tile(32, 64, 8, 2), Tile(64, 32, 8, 2), False),
        256: (Tile(64, 32, 8, 2), Tile(32, 32, 8, 2), Tile(64, 32, 8, 1), False),
    },
    # Here the assembler spills a few bytes to run two blocks at a time, which other tiles keep it from.
    "single": _with_key_gradients(
        _SINGLE,
        {
            16: Tile(16, 32, 8, 1),
            32: Tile(16, 32, 8, 1),
            128: Tile(16, 16, 8, 1),
            256: Tile(16, 32, 8, 1),
        },
    ),
    "single biased": _with_key_gradients(
        _SINGLE, {16: Tile(16, 32, 8, 1), 32: Tile(16, 32, 8, 1), 64: Tile(16, 16, 8, 1)}
    ),
}
_SM90 = {
    "half": {
        16: (Tile(64, 64, 4, 3), Tile(64, 64, 4, 3), Tile(64, 64, 4, 3), False),
        32: (Tile(64, 64, 4, 3), Tile(64, 64, 4, 3), Tile(64, 64, 4, 3), False),
        64: (Tile(64, 64, 4, 3), Tile(64, 64, 4, 3), Tile(64, 64, 4, 3), False),
        128: (Tile(128, 32, 8, 3), Tile(32, 64, 4, 2), Tile(128, 64, 8, 3), False),
        256: (Tile(128, 32, 8, 3), Tile(32, 64, 4, 1), Tile(128, 32, 8, 3), True),
    },
    "half biased": {
        16: (Tile(64, 64, 4, 2), Tile(32, 64, 4, 2), Tile(64, 64, 4, 2), False),
        32: (Tile(64, 32, 4, 2), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), False),
        64: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), False),
        128: (Tile(64, 64, 4, 2), Tile(32, 64, 4, 2), Tile(64, 64, 4, 2), False),
        256: (Tile(64, 32, 4, 2), Tile(16, 64, 4, 2), Tile(64, 32, 4, 2), True),
    },
    "single": _SINGLE,
    "single biased": _SINGLE,
}
_SM100 = {
    "half": {
        16: (Tile(128, 64, 8, 3), Tile(32, 128, 8, 2), Tile(128, 64, 8, 2), False),
        32: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 2), Tile(64, 64, 8, 2), False),
        64: (Tile(128, 64, 8, 3), Tile(64, 128, 8, 2), Tile(128, 64, 8, 2), False),
        128: (Tile(128, 64, 8, 2), Tile(32, 128, 8, 2), Tile(128, 64, 8, 2), False),
        256: (Tile(64, 64, 8, 2), Tile(32, 64, 8, 2), Tile(64, 64, 8, 2), True),
    },
    "half biased": {
        16: (Tile(64, 32, 8, 2), Tile(32, 128, 8, 2), Tile(64, 64, 8, 2), False),
        32: (Tile(64, 32, 8, 2), Tile(32, 128, 8, 2), Tile(64, 64, 8, 2), False),
        64: (Tile(64, 64, 8, 2), Tile(32, 128, 8, 2), Tile(64, 64, 8, 2), False),
        128: (Tile(64, 32, 8, 2), Tile(32, 64, 8, 2), Tile(128, 32, 8, 2), True),
        256: (Tile(64, 32, 8, 1), Tile(16, 64, 8, 2), Tile(64, 32, 8, 2), True),
    },
    "single": _with_key_gradients(_SINGLE, {32: Tile(16, 32, 8, 1)}),
    "single biased": _with_key_gradients(_SINGLE, {32: Tile(16, 32, 8, 1)}),
}
_SMALLEST = (Tile(16, 16, 4, 1), Tile(16, 16, 4, 1), Tile(16, 16, 4, 1), True)
_WIDTHS = (16, 32, 64, 128, 256)

TABLES: dict[str, dict[str, dict[int, Entry]]] = {
    "sm_80": _SM80,
    "sm_90": _SM90,
    "sm_100": _SM100,
    # Nothing is known about these chips but that the smallest tiles ask little of any.
    "other": {kind: dict.fromkeys(_WIDTHS, _SMALLEST) for kind in _SM90},
}
"""By chip, then "half" (16 bits) or "single" (fp32), each also "biased" (by position or time), then width."""

"""The chips that kernels are compiled for: what the compiler calls them, and what a block may use there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A chip without the chip.

    Attributes:
        name: as on the command line.
        backend: Triton's name of the vendor's toolchain.
        arch: Triton's name of the chip: compute capability times ten, or the gfx name.
        warp_size: threads of a warp.
        shared_limit: bytes of shared memory that one block may use.
        matrix_instruction: pattern of the matrix instruction meant, in the chip's assembly.
        other_matrix_instruction: pattern of a slower one that the chip still has; empty if there is none.
    """

    name: str
    backend: str
    arch: int | str
    warp_size: int
    shared_limit: int
    matrix_instruction: str
    other_matrix_instruction: str = ""


TARGETS = {
    target.name: target
    for target in (
        Target("sm_80", "cuda", 80, 32, 163 * 1024, r"\bHMMA\b"),
        Target("sm_90", "cuda", 90, 32, 227 * 1024, r"\bHGMMA\b", r"\bHMMA\b"),
        Target("sm_100", "cuda", 100, 32, 227 * 1024, r"\bUTC\w*MMA\b", r"\bHMMA\b"),
        Target("gfx942", "hip", "gfx942", 64, 64 * 1024, r"\bv_mfma_"),
    )
}

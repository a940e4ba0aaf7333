"""Issue rates of the chips: what one multiprocessor does in a clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One multiprocessor, and how many of them there are.

    The lanes are those of NVIDIA's table "throughput of native arithmetic instructions" in the CUDA programming
    guide; the tensor cores' rates are the published dense 16-bit peaks over multiprocessors and clock.

    Attributes:
        processors: multiprocessors of the chip.
        clock: clocks a second while the tensor cores are busy.
        tensor_flops: 16-bit matrix FLOPs of a multiprocessor in a clock, sums in fp32.
        float_lanes: fp32 operations (a fused multiply-add is one) in a clock.
        integer_lanes: integer, compare, select and pack operations in a clock; multiplications likewise.
        special_lanes: exponentials, roots, tanh and conversions between integers and floats in a clock.
        shared_bytes_per_clock: what shared memory delivers.
        shared_bytes: shared memory of a multiprocessor, of which each block reserves 1 KiB.
        registers: 32-bit registers of a multiprocessor.
    """

    processors: int
    clock: float
    tensor_flops: int
    float_lanes: int
    integer_lanes: int = 64
    special_lanes: int = 16
    shared_bytes_per_clock: int = 128
    shared_bytes: int = 228 * 1024
    registers: int = 65536


CHIPS = {
    "sm_80": Chip(108, 1.41e9, 2048, float_lanes=64, shared_bytes=164 * 1024),
    "sm_90": Chip(132, 1.755e9, 4096, float_lanes=128),
    "sm_100": Chip(148, 1.85e9, 8192, float_lanes=128),
}
"""A100, H100 (SXM) and B200."""

"""What this device reaches at its best, measured in the same run: a large product, a large copy."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .timing import stopwatch


@dataclass(frozen=True)
class Ceilings:
    """Best speeds of one device.

    Attributes:
        tflops: TFLOP/s of a square product in `dtype`.
        gb_per_second: read plus written GB/s of a copy.
        dtype: dtype of the product.
        gemm_size: rows and columns of the product's matrices.
        copy_bytes: bytes that the copy reads.
    """

    tflops: float
    gb_per_second: float
    dtype: str
    gemm_size: int
    copy_bytes: int


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Median of 10 products and 10 copies."""
    size, num_bytes = (8192, 2**30) if device.type == "cuda" else (1024, 2**26)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    product, target = torch.empty_like(a), torch.empty_like(source)
    gemm = _median(device, lambda: torch.mm(a, b, out=product))
    copy = _median(device, lambda: target.copy_(source))
    return Ceilings(
        tflops=2 * size**3 / gemm / 1e12,
        gb_per_second=2 * num_bytes / copy / 1e9,
        dtype=str(dtype).removeprefix("torch."),
        gemm_size=size,
        copy_bytes=num_bytes,
    )


def _median(device: torch.device, action: Callable[[], object]) -> float:
    def stage() -> None:
        action()

    for _ in range(3):
        stage()
    watch = stopwatch(device)
    for _ in range(10):
        watch.run([stage])
    return statistics.median(watch.seconds()[0])

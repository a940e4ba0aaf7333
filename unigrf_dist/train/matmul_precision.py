"""How exactly fp32 matrices are multiplied in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Within, fp32 products are computed as ``torch.set_float32_matmul_precision`` says; sums stay fp32.

    Around the steps only: evaluation must give the same metrics on any number of ranks, and shorter factors
    would make them depend on how a batch was split.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

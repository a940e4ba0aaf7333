"""The smallest Triton kernel. A file of its own, because defining it imports Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_one(values_ptr, count, BLOCK: tl.constexpr = 8):  # type: ignore[no-untyped-def] # Triton's own types
    indices = tl.arange(0, BLOCK)
    valid = indices < count
    values = tl.load(values_ptr + indices, mask=valid)
    tl.store(values_ptr + indices, values + 1, mask=valid)

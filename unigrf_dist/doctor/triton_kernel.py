"""The smallest kernel there is. A file of its own, because defining it imports Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_one(values_ptr, count, BLOCK: tl.constexpr = 8):  # type: ignore[no-untyped-def] # Triton's own types
    place = tl.arange(0, BLOCK)
    inside = place < count
    values = tl.load(values_ptr + place, mask=inside)
    tl.store(values_ptr + place, values + 1, mask=inside)

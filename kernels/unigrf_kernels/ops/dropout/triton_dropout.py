"""``seeded_dropout`` as a kernel, forward and backward alike: 2 numbers of memory traffic per element."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import launch_kernel
from .constants import keep_count, keep_scale
from .triton_mask import keeps, seed_keys

BLOCK = 2048
NUM_WARPS = 4


@triton.jit
def dropout_kernel(x, out, seed, num_elements, keep_count, scale, BLOCK: tl.constexpr):
    """One program per ``BLOCK`` elements."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    offsets = tl.arange(0, BLOCK)
    mask = offsets < num_elements - first
    key_0, key_1 = seed_keys(tl.load(seed))
    keep = keeps(first, offsets, key_0, key_1, keep_count)
    values = tl.load(x + first + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + first + offsets, tl.where(keep, values * scale, values * 0.0), mask=mask)


def dropout_arguments(x: Tensor, out: Tensor, seed: Tensor, dropout: float) -> dict[str, Any]:
    """Arguments of ``dropout_kernel``."""
    return {
        "x": x,
        "out": out,
        "seed": seed,
        "num_elements": x.numel(),
        "keep_count": keep_count(dropout),
        "scale": keep_scale(dropout),
        "BLOCK": BLOCK,
    }


def run_dropout(x: Tensor, seed: Tensor, dropout: float) -> Tensor:
    """Launch ``dropout_kernel``."""
    x = x.contiguous()
    out = torch.empty_like(x)
    arguments = dropout_arguments(x, out, seed, dropout)
    launch_kernel(dropout_kernel, (triton.cdiv(x.numel(), BLOCK),), arguments, num_warps=NUM_WARPS)
    return out

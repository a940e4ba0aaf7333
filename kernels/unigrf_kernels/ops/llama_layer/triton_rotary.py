"""Kernel of ``rotary``; backwards it turns the other way."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import math

import triton
import triton.language as tl

# pi / 2 in three parts. The first two have so few bits that their products with a quadrant number below 2^16
# are exact, so the reduced angle is as exact as fp32 can hold it.
_QUARTER_0 = tl.constexpr(201 / 128)
_QUARTER_1 = tl.constexpr(507 / 2**20)
_QUARTER_2 = tl.constexpr(math.pi / 2 - 201 / 128 - 507 / 2**20)
_QUADRANTS_PER_RADIAN = tl.constexpr(2 / math.pi)


@triton.jit
def rotary_kernel(
    x,
    positions,
    frequencies,
    out,
    num_tokens,
    token_stride,
    head_stride,
    direction,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program per ``TOKENS`` tokens, for all heads: sines and cosines are computed once for them."""
    tokens = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    position = tl.load(positions + tokens, mask=tokens < num_tokens, other=0).to(tl.float32)
    frequency = tl.load(frequencies + columns, mask=columns < HALF, other=0.0)
    cos, sin = _cos_sin(position[:, None] * frequency[None, :])
    sin *= direction
    mask = (tokens < num_tokens)[:, None] & (columns < HALF)[None, :]
    source = x + tokens[:, None] * token_stride + columns[None, :]
    target = out + tokens[:, None] * (2 * HALF * HEADS) + columns[None, :]
    for head in range(HEADS):
        first = tl.load(source + head * head_stride, mask=mask, other=0.0).to(tl.float32)
        second = tl.load(source + head * head_stride + HALF, mask=mask, other=0.0).to(tl.float32)
        tl.store(target + head * 2 * HALF, first * cos - second * sin, mask=mask)
        tl.store(target + head * 2 * HALF + HALF, second * cos + first * sin, mask=mask)


@triton.jit
def _cos_sin(angle):
    """fp32 cosine and sine, to an error of 10^-7 for angles below 10^3 and of 10^-6 below 10^5.

    The library's functions need a stack for angles far beyond that; here there is none.
    """
    quadrant = tl.floor(angle * _QUADRANTS_PER_RADIAN + 0.5)
    remainder = ((angle - quadrant * _QUARTER_0) - quadrant * _QUARTER_1) - quadrant * _QUARTER_2
    square = remainder * remainder
    # Taylor series up to remainder^9 and remainder^10: on [-pi/4, pi/4] what follows is below 2^-29.
    sin = remainder * (1 + square * (-1 / 6 + square * (1 / 120 + square * (-1 / 5040 + square * (1 / 362880)))))
    cos = 1 + square * (
        -1 / 2 + square * (1 / 24 + square * (-1 / 720 + square * (1 / 40320 - square * (1 / 3628800))))
    )
    turns = quadrant.to(tl.int32)
    swapped = (turns & 1) == 1
    new_cos = tl.where(swapped, sin, cos)
    new_sin = tl.where(swapped, cos, sin)
    new_cos = tl.where(((turns + 1) & 2) == 2, -new_cos, new_cos)
    new_sin = tl.where((turns & 2) == 2, -new_sin, new_sin)
    return new_cos, new_sin

"""The dropout mask inside Triton kernels; ``reference.py`` defines it."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .constants import GOLDEN_RATIO, HALF_RANGE, KEY_CONSTANTS, MULTIPLIERS, RANGE, WORD_MASK

_GOLDEN_RATIO = tl.constexpr(GOLDEN_RATIO)
_MULTIPLIER_0 = tl.constexpr(MULTIPLIERS[0])
_MULTIPLIER_1 = tl.constexpr(MULTIPLIERS[1])
_KEY_CONSTANT_0 = tl.constexpr(KEY_CONSTANTS[0])
_KEY_CONSTANT_1 = tl.constexpr(KEY_CONSTANTS[1])
_WORD_MASK = tl.constexpr(WORD_MASK)
_HALF_MASK = tl.constexpr(RANGE - 1)
_SIGN = tl.constexpr(HALF_RANGE)


@triton.jit
def seed_keys(seed):
    """Two uint32 keys of an int64 seed."""
    low = (seed & _WORD_MASK).to(tl.uint32)
    high = ((seed >> 32) & _WORD_MASK).to(tl.uint32)
    key_0 = _mix(low ^ _mix(high ^ _KEY_CONSTANT_0))
    key_1 = _mix(high ^ _mix(low ^ _KEY_CONSTANT_1))
    return key_0, key_1


@triton.jit
def keeps(first, offsets, key_0, key_1, keep_count):
    """Whether the elements ``first + offsets`` are kept; ``first`` int64 >= 0, ``offsets`` int32 >= 0."""
    # The 64-bit part is one number per row: only 32-bit arithmetic is left per element.
    from_even = offsets + (first & 1).to(tl.int32)
    words = (first >> 1).to(tl.uint32) + (from_even >> 1).to(tl.uint32)
    state = words * _GOLDEN_RATIO + key_0
    state = (state ^ (state >> 16)) * _MULTIPLIER_0 + key_1
    state = (state ^ (state >> 15)) * _MULTIPLIER_1
    state = state ^ (state >> 15)
    half = (state >> ((from_even & 1) * 16).to(tl.uint32)) & _HALF_MASK
    # The half as a signed number, moved up by 2^15.
    return (half ^ _SIGN).to(tl.int32) < keep_count


@triton.jit
def _mix(state):
    state = (state ^ (state >> 16)) * _MULTIPLIER_0
    state = (state ^ (state >> 15)) * _MULTIPLIER_1
    return state ^ (state >> 15)

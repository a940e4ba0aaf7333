"""The definition of the mask and of the operator, to be read; the fast paths must give the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import (
    GOLDEN_RATIO,
    HALF_RANGE,
    KEY_CONSTANTS,
    MULTIPLIERS,
    RANGE,
    WORD_MASK,
    keep_count,
    keep_scale,
)


def reference_dropout(x: Tensor, *, dropout: float, seed: Tensor) -> Tensor:
    """``x * keep / P(keep)``: what is kept is scaled so that the expectation stays ``x``."""
    keep = reference_keep_mask(seed, x.numel(), dropout).view(x.shape)
    return x * keep * keep_scale(dropout)


def reference_keep_mask(seed: Tensor, numel: int, dropout: float) -> Tensor:
    """``[numel]`` bool: element ``i`` is kept if half ``i % 2`` of the hash of word ``i // 2`` is low enough.

    A 32-bit hash serves two elements, its low half the even one. A half is read as a signed number.
    """
    key_0, key_1 = seed_keys(seed)
    element = torch.arange(numel, dtype=torch.int64, device=seed.device)
    state = (element // 2 * GOLDEN_RATIO + key_0) & WORD_MASK
    state = (_fold(state, 16) * MULTIPLIERS[0] + key_1) & WORD_MASK
    state = (_fold(state, 15) * MULTIPLIERS[1]) & WORD_MASK
    word = _fold(state, 15)
    half = torch.where(element % 2 == 0, word & (RANGE - 1), word >> 16)
    signed = torch.where(half >= HALF_RANGE, half - RANGE, half)
    return signed < keep_count(dropout) - HALF_RANGE


def seed_keys(seed: Tensor) -> tuple[Tensor, Tensor]:
    """The two 32-bit keys of a 64-bit seed, as int64 scalars: every bit of the seed moves both."""
    low, high = seed & WORD_MASK, (seed >> 32) & WORD_MASK
    key_0 = _mix(low ^ _mix(high ^ KEY_CONSTANTS[0]))
    key_1 = _mix(high ^ _mix(low ^ KEY_CONSTANTS[1]))
    return key_0, key_1


def _mix(state: Tensor) -> Tensor:
    state = (_fold(state, 16) * MULTIPLIERS[0]) & WORD_MASK
    state = (_fold(state, 15) * MULTIPLIERS[1]) & WORD_MASK
    return _fold(state, 15)


def _fold(state: Tensor, shift: int) -> Tensor:
    return state ^ (state >> shift)

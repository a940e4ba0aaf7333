"""Numbers that all implementations of the mask share.

The mixing function is the 32-bit finaliser found by C. Wellons' "hash prospector" search (public domain).
"""

from __future__ import annotations

GOLDEN_RATIO = 0x9E3779B1
"""Odd 32-bit integer next to 2^32 divided by the golden ratio: successive multiples lie far apart."""
MULTIPLIERS = (0x21F0AAAD, 0xD35A2D97)
KEY_CONSTANTS = (0x85EBCA6B, 0xC2B2AE35)
"""Keep a zero seed away from zero, which the mixing function maps to itself, and the two keys apart."""
WORD_MASK = 0xFFFFFFFF
RANGE = 1 << 16
HALF_RANGE = RANGE // 2
MAX_ELEMENTS = 1 << 33
"""Two elements per 32-bit counter: beyond this the mask would repeat."""


def keep_count(dropout: float) -> int:
    """How many of the ``RANGE`` values of a half keep an element: ``dropout`` is rounded to 2^-16."""
    return max(1, round((1 - dropout) * RANGE))


def keep_scale(dropout: float) -> float:
    """The inverse of the probability of being kept, so that the expectation is exact in spite of rounding."""
    return RANGE / keep_count(dropout)


def signed_word(value: int) -> int:
    """The int32 with the bits of the low 32 bits of ``value``."""
    value &= WORD_MASK
    return value - (1 << 32) if value >> 31 else value

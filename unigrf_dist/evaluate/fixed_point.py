"""Dot products that come out the same however the sum is cut.

A floating-point dot product depends on the order of its additions: on the matrix library, the size of a chunk
and the ranks that hold parts of it. Ranks of items would depend on them too, wherever two scores are equal or
almost so. Here vectors of length at most 1 are rounded to multiples of ``2^-26`` and kept as integers in
float64. By the Cauchy-Schwarz inequality every partial sum of ``<q, x>`` is then an integer of at most about
``2^52``, and float64 adds integers below ``2^53`` without error: any order gives the same bits.

The rounding is of the size of one float32 step of the vectors themselves, so nothing is lost that training knew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

FRACTION_BITS = 26
_SCALE = float(2**FRACTION_BITS)


def to_fixed_point(vectors: Tensor, lengths: Tensor) -> Tensor:
    """``vectors / lengths`` in units of ``2^-26``.

    Args:
        vectors: ``[N, D]`` floating point.
        lengths: ``[N]`` float64, positive, at least the L2 norm of each (whole) vector.

    Returns:
        ``[N, D]`` float64 that holds integers.
    """
    return (vectors.double() / lengths[:, None] * _SCALE).round_()


def from_fixed_point(products: Tensor) -> Tensor:
    """The value of products of two fixed-point numbers, float64."""
    return products / (_SCALE * _SCALE)


def exact_norms(
    parts: list[Tensor],
    width: int,
    *,
    across_max: Callable[[list[Tensor]], list[Tensor]] = lambda parts: parts,
    across_sum: Callable[[list[Tensor]], list[Tensor]] = lambda parts: parts,
    block_rows: int = 65536,
) -> list[Tensor]:
    """L2 norms of rows, the same bits whether or not one rank holds all columns of a row.

    Each row is scaled by a power of two so that its largest value fills the available bits, squares are
    summed as integers, and only the final square root rounds.

    Args:
        parts: ``[rows, columns]`` tensors; a row's columns may be split over ranks.
        width: columns of a whole row.
        across_max: reduces ``[rows]`` float64 of each part to the largest over all ranks that hold columns of the
            row.
        across_sum: likewise to the sum, for int64.
        block_rows: rows widened to float64 at a time.

    Returns:
        ``[rows]`` float64 for each part.
    """
    # width * 2^(2 bits) has to stay below 2^63.
    bits = min(FRACTION_BITS, (62 - max(width, 1).bit_length()) // 2)
    largest = across_max([_by_blocks(part, block_rows, _largest_magnitudes) for part in parts])
    exponents = [torch.frexp(values).exponent.long() for values in largest]
    shifts = [_power_of_two(bits - exponent) for exponent in exponents]
    squares = across_sum(
        [
            _by_blocks(part, block_rows, partial(_integer_squares, shifts=shift))
            for part, shift in zip(parts, shifts, strict=True)
        ]
    )
    return [
        _nearest_sqrt(total.double()) * _power_of_two(exponent - bits)
        for total, exponent in zip(squares, exponents, strict=True)
    ]


def _nearest_sqrt(values: Tensor) -> Tensor:
    """The float64 nearest to each square root, on any machine.

    On some CPUs PyTorch leaves float64 roots to a vector library that misses the last bit now and then (0.7 % of
    random numbers), on others not; ranks on two kinds of CPU would disagree. NumPy's is IEEE 754's, as is CUDA's.
    """
    return values.sqrt() if values.is_cuda else torch.from_numpy(np.sqrt(values.numpy()))


def _by_blocks(part: Tensor, block_rows: int, reduce: Callable[[Tensor, slice], Tensor]) -> Tensor:
    starts = range(0, max(part.shape[0], 1), block_rows)
    blocks = [slice(start, start + block_rows) for start in starts]
    return torch.cat([reduce(part[at].double(), at) for at in blocks])


def _largest_magnitudes(rows: Tensor, _: slice) -> Tensor:
    return rows.abs().amax(1)


def _integer_squares(rows: Tensor, at: slice, *, shifts: Tensor) -> Tensor:
    return (rows * shifts[at, None]).round_().long().square().sum(1)


def _power_of_two(exponents: Tensor) -> Tensor:
    # Written into the exponent field: exp2 is not promised to be exact.
    return ((exponents + 1023) << 52).view(torch.float64)

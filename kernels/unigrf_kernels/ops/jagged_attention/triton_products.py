"""Products of the attention kernels that matrix instructions do not compute."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def row_products(left, right, IN_PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """Products of all rows of `left` with all rows of `right`.

    Without matrix instructions a thread holds whole rows of both operands in registers. IN_PARTS takes the rows'
    quarters one after the other, so that rows of 256 numbers do not spill.
    """
    if IN_PARTS:
        left_first, left_second = _halves(left)
        right_first, right_second = _halves(right)
        product = tl.zeros([left.shape[0], right.shape[0]], dtype=tl.float32)
        product = _add_halves(product, left_first, right_first, PRECISION)
        product = _add_halves(product, left_second, right_second, PRECISION)
    else:
        product = tl.dot(left, tl.trans(right), input_precision=PRECISION)
    return product


@triton.jit
def _add_halves(product, left, right, PRECISION: tl.constexpr):
    left_first, left_second = _halves(left)
    right_first, right_second = _halves(right)
    product = tl.dot(left_first, tl.trans(right_first), product, input_precision=PRECISION)
    return tl.dot(left_second, tl.trans(right_second), product, input_precision=PRECISION)


@triton.jit
def _halves(rows):
    pairs = tl.reshape(rows, [rows.shape[0], 2, rows.shape[1] // 2])
    return tl.split(tl.trans(pairs, 0, 2, 1))

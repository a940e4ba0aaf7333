"""Device functions of the kernels that hold whole rows in registers."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_rows(base, rows, columns, mask, WIDTH: tl.constexpr):
    """fp32 tile of contiguous rows; what the mask excludes is 0. ``rows`` are int64."""
    return tl.load(base + rows[:, None] * WIDTH + columns[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store_rows(base, rows, columns, mask, values, WIDTH: tl.constexpr):
    """Inverse of ``load_rows``."""
    tl.store(base + rows[:, None] * WIDTH + columns[None, :], values, mask=mask)


@triton.jit
def load_columns(base, columns, WIDTH: tl.constexpr):
    """fp32 vector of one number per column; 0 beyond the width."""
    return tl.load(base + columns, mask=columns < WIDTH, other=0.0).to(tl.float32)


@triton.jit
def standardise(values, mask, eps, WIDTH: tl.constexpr):
    """Rows with mean 0 and variance 1, and the inverse of their standard deviations."""
    centred = tl.where(mask, values - (tl.sum(values, axis=1) / WIDTH)[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred, axis=1) / WIDTH + eps)
    return centred * inverse[:, None], inverse


@triton.jit
def standardise_gradient(grad, standard, inverse, WIDTH: tl.constexpr):
    """Gradient of the rows from that of ``standardise``'s result; both are 0 beyond the width."""
    mean = tl.sum(grad, axis=1) / WIDTH
    slope = tl.sum(grad * standard, axis=1) / WIDTH
    return (grad - mean[:, None] - standard * slope[:, None]) * inverse[:, None]


@triton.jit
def store_column_sums(base, program, columns, sums, WIDTH: tl.constexpr):
    """One program's row of partial column sums."""
    tl.store(base + program.to(tl.int64) * WIDTH + columns, sums, mask=columns < WIDTH)

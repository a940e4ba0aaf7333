"""Kernels of ``rms_norm``: one pass over the rows forward, one backward. Saved: the arguments."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_rows import load_columns, load_rows, store_column_sums, store_rows


@triton.jit
def rms_norm_kernel(x, weight, out, num_rows, eps, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """``out = rms_norm(x)``, one program per ``ROWS`` rows."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
    values = load_rows(x, rows, columns, mask, WIDTH)
    inverse = tl.rsqrt(tl.sum(values * values, axis=1) / WIDTH + eps)
    normed = values * inverse[:, None] * load_columns(weight, columns, WIDTH)[None, :]
    store_rows(out, rows, columns, mask, normed, WIDTH)


@triton.jit
def rms_norm_gradient_kernel(
    x,
    weight,
    grad,
    grad_x,
    weight_sums,
    num_rows,
    eps,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Gradient of the rows; each program adds up its tiles' gradients of the weight into one row."""
    columns = tl.arange(0, COLUMNS)
    scale = load_columns(weight, columns, WIDTH)[None, :]
    weight_sum = tl.zeros([COLUMNS], dtype=tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        rows = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
        values = load_rows(x, rows, columns, mask, WIDTH)
        inverse = tl.rsqrt(tl.sum(values * values, axis=1) / WIDTH + eps)
        standard = values * inverse[:, None]
        upstream = load_rows(grad, rows, columns, mask, WIDTH)
        weight_sum += tl.sum(upstream * standard, axis=0)
        upstream *= scale
        slope = tl.sum(upstream * standard, axis=1) / WIDTH
        result = (upstream - standard * slope[:, None]) * inverse[:, None]
        store_rows(grad_x, rows, columns, mask, result, WIDTH)
    store_column_sums(weight_sums, tl.program_id(0), columns, weight_sum, WIDTH)

"""Kernels of ``norm_project_silu``; the products between them are library GEMMs.

Saved for the backward pass: the arguments. A row of ``x`` is normalised twice and the projection computed
twice; see README for the memory that this spares.
"""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_rows import (
    load_columns,
    load_rows,
    standardise,
    standardise_gradient,
    store_column_sums,
    store_rows,
)


@triton.jit
def layer_norm_kernel(
    x, gamma, beta, out, num_rows, eps, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """``out = layer_norm(x)``, one program per ``ROWS`` rows."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
    standard, _ = standardise(load_rows(x, rows, columns, mask, WIDTH), mask, eps, WIDTH)
    scaled = standard * load_columns(gamma, columns, WIDTH)[None, :]
    store_rows(out, rows, columns, mask, scaled + load_columns(beta, columns, WIDTH)[None, :], WIDTH)


@triton.jit
def layer_norm_gradient_kernel(
    x,
    gamma,
    grad,
    grad_x,
    gamma_sums,
    beta_sums,
    num_rows,
    eps,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Gradient of the rows; each program adds up its tiles' gradients of gamma and beta into one row."""
    columns = tl.arange(0, COLUMNS)
    scale = load_columns(gamma, columns, WIDTH)[None, :]
    gamma_sum = tl.zeros([COLUMNS], dtype=tl.float32)
    beta_sum = tl.zeros([COLUMNS], dtype=tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        rows = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
        standard, inverse = standardise(load_rows(x, rows, columns, mask, WIDTH), mask, eps, WIDTH)
        upstream = load_rows(grad, rows, columns, mask, WIDTH)
        gamma_sum += tl.sum(upstream * standard, axis=0)
        beta_sum += tl.sum(upstream, axis=0)
        result = standardise_gradient(upstream * scale, standard, inverse, WIDTH)
        store_rows(grad_x, rows, columns, mask, result, WIDTH)
    store_column_sums(gamma_sums, tl.program_id(0), columns, gamma_sum, WIDTH)
    store_column_sums(beta_sums, tl.program_id(0), columns, beta_sum, WIDTH)


@triton.jit
def silu_split_kernel(
    projected,
    u,
    v,
    q,
    k,
    num_rows,
    U: tl.constexpr,
    V: tl.constexpr,
    Q: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Cuts ``silu(projected)`` into its parts: axis 0 of the grid over rows, axis 1 over parts."""
    part = tl.program_id(1)
    if part == 0:
        _silu_part(projected, u, num_rows, 0, U, U + V + Q + K, ROWS, COLUMNS)
    elif part == 1:
        _silu_part(projected, v, num_rows, U, V, U + V + Q + K, ROWS, COLUMNS)
    elif part == 2:
        _silu_part(projected, q, num_rows, U + V, Q, U + V + Q + K, ROWS, COLUMNS)
    else:
        _silu_part(projected, k, num_rows, U + V + Q, K, U + V + Q + K, ROWS, COLUMNS)


@triton.jit
def _silu_part(
    projected,
    out,
    num_rows,
    START: tl.constexpr,
    WIDTH: tl.constexpr,
    TOTAL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    for start in range(0, WIDTH, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
        value = load_rows(projected, rows, START + columns, mask, TOTAL)
        store_rows(out, rows, columns, mask, value * tl.sigmoid(value), WIDTH)


@triton.jit
def silu_split_gradient_kernel(
    projected,
    grad_u,
    grad_v,
    grad_q,
    grad_k,
    num_rows,
    U: tl.constexpr,
    V: tl.constexpr,
    Q: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Overwrites ``projected``, a buffer of the backward pass, with its gradient. Grid as in the forward."""
    part = tl.program_id(1)
    if part == 0:
        _silu_part_gradient(projected, grad_u, num_rows, 0, U, U + V + Q + K, ROWS, COLUMNS)
    elif part == 1:
        _silu_part_gradient(projected, grad_v, num_rows, U, V, U + V + Q + K, ROWS, COLUMNS)
    elif part == 2:
        _silu_part_gradient(projected, grad_q, num_rows, U + V, Q, U + V + Q + K, ROWS, COLUMNS)
    else:
        _silu_part_gradient(projected, grad_k, num_rows, U + V + Q, K, U + V + Q + K, ROWS, COLUMNS)


@triton.jit
def _silu_part_gradient(
    projected,
    grad,
    num_rows,
    START: tl.constexpr,
    WIDTH: tl.constexpr,
    TOTAL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    for start in range(0, WIDTH, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
        value = load_rows(projected, rows, START + columns, mask, TOTAL)
        upstream = load_rows(grad, rows, columns, mask, WIDTH)
        gate = tl.sigmoid(value)
        slope = gate * (1 + value * (1 - gate))
        store_rows(projected, rows, START + columns, mask, upstream * slope, TOTAL)

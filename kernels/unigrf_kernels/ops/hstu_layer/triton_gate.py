"""Kernels of ``gated_norm_dropout``: one pass over the rows forward, one backward.

Saved for the backward pass: the arguments. Statistics and mask are computed again, from rows that have to be
read anyway and from the seed.
"""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from ..dropout.triton_mask import keeps, seed_keys
from ..triton_rows import (
    load_columns,
    load_rows,
    standardise,
    standardise_gradient,
    store_column_sums,
    store_rows,
)


@triton.jit
def gate_kernel(
    attention,
    gate,
    gamma,
    beta,
    seed,
    out,
    num_rows,
    eps,
    keep_count,
    scale,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """``out = dropout(gate * layer_norm(attention))``, one program per ``ROWS`` rows."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
    standard, _ = standardise(load_rows(attention, rows, columns, mask, WIDTH), mask, eps, WIDTH)
    scaled = standard * load_columns(gamma, columns, WIDTH)[None, :]
    normed = scaled + load_columns(beta, columns, WIDTH)[None, :]
    value = normed * load_rows(gate, rows, columns, mask, WIDTH)
    if DROPOUT:
        value *= _dropout_factor(seed, rows, columns, keep_count, scale, WIDTH)
    store_rows(out, rows, columns, mask, value, WIDTH)


@triton.jit
def gate_gradient_kernel(
    attention,
    gate,
    gamma,
    beta,
    seed,
    grad,
    grad_attention,
    grad_gate,
    gamma_sums,
    beta_sums,
    num_rows,
    eps,
    keep_count,
    scale,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """Gradients of both rows; each program adds up its tiles' gradients of gamma and beta into one row."""
    columns = tl.arange(0, COLUMNS)
    weight = load_columns(gamma, columns, WIDTH)[None, :]
    bias = load_columns(beta, columns, WIDTH)[None, :]
    gamma_sum = tl.zeros([COLUMNS], dtype=tl.float32)
    beta_sum = tl.zeros([COLUMNS], dtype=tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        rows = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
        standard, inverse = standardise(load_rows(attention, rows, columns, mask, WIDTH), mask, eps, WIDTH)
        upstream = load_rows(grad, rows, columns, mask, WIDTH)
        if DROPOUT:
            upstream *= _dropout_factor(seed, rows, columns, keep_count, scale, WIDTH)
        store_rows(grad_gate, rows, columns, mask, upstream * (standard * weight + bias), WIDTH)
        upstream *= load_rows(gate, rows, columns, mask, WIDTH)
        gamma_sum += tl.sum(upstream * standard, axis=0)
        beta_sum += tl.sum(upstream, axis=0)
        result = standardise_gradient(upstream * weight, standard, inverse, WIDTH)
        store_rows(grad_attention, rows, columns, mask, result, WIDTH)
    store_column_sums(gamma_sums, tl.program_id(0), columns, gamma_sum, WIDTH)
    store_column_sums(beta_sums, tl.program_id(0), columns, beta_sum, WIDTH)


@triton.jit
def _dropout_factor(seed, rows, columns, keep_count, scale, WIDTH: tl.constexpr):
    key_0, key_1 = seed_keys(tl.load(seed))
    keep = keeps((rows * WIDTH)[:, None], columns[None, :], key_0, key_1, keep_count)
    return tl.where(keep, scale, 0.0)

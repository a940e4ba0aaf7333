"""Kernels of ``swiglu``. Rows may lie apart, as the halves of one projection do."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def swiglu_kernel(
    gate,
    up,
    out,
    num_rows,
    gate_stride,
    up_stride,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """``out = silu(gate) * up``; axis 0 of the grid over rows, axis 1 over columns."""
    rows, columns, mask = _tile(num_rows, WIDTH, ROWS, COLUMNS)
    gates = tl.load(gate + rows * gate_stride + columns, mask=mask, other=0.0).to(tl.float32)
    ups = tl.load(up + rows * up_stride + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + rows * WIDTH + columns, gates * tl.sigmoid(gates) * ups, mask=mask)


@triton.jit
def swiglu_gradient_kernel(
    gate,
    up,
    grad,
    grad_gate,
    grad_up,
    num_rows,
    gate_stride,
    up_stride,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Gradients of both; grid as in the forward."""
    rows, columns, mask = _tile(num_rows, WIDTH, ROWS, COLUMNS)
    gates = tl.load(gate + rows * gate_stride + columns, mask=mask, other=0.0).to(tl.float32)
    ups = tl.load(up + rows * up_stride + columns, mask=mask, other=0.0).to(tl.float32)
    upstream = tl.load(grad + rows * WIDTH + columns, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gates)
    slope = sigmoid * (1 + gates * (1 - sigmoid))
    tl.store(grad_gate + rows * WIDTH + columns, upstream * ups * slope, mask=mask)
    tl.store(grad_up + rows * WIDTH + columns, upstream * gates * sigmoid, mask=mask)


@triton.jit
def _tile(num_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    columns = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return rows, columns, (rows < num_rows) & (columns < WIDTH)

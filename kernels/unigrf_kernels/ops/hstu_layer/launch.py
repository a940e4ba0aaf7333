"""From tensors to kernel launches: the arguments of each kernel by name, its grid, its buffers.

The AOT resource check takes its cases from the same functions, called on meta tensors. Rows are contiguous here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..dropout.constants import keep_count, keep_scale
from ..launching import launch_kernel
from ..row_tiles import RowTile, choose_row_tile, num_looping_programs
from .triton_gate import gate_gradient_kernel, gate_kernel
from .triton_projection import (
    layer_norm_gradient_kernel,
    layer_norm_kernel,
    silu_split_gradient_kernel,
    silu_split_kernel,
)

MAX_SPLIT_COLUMNS = 256
"""Columns that a program of the split takes at once; it needs no whole rows."""


def layer_norm_arguments(x: Tensor, gamma: Tensor, beta: Tensor, out: Tensor, eps: float) -> dict[str, Any]:
    """Arguments of ``layer_norm_kernel``."""
    return {"x": x, "gamma": gamma, "beta": beta, "out": out, "eps": eps, **_tile_arguments(x)}


def layer_norm_gradient_arguments(
    x: Tensor, gamma: Tensor, grad: Tensor, grad_x: Tensor, gamma_sums: Tensor, beta_sums: Tensor, eps: float
) -> dict[str, Any]:
    """Arguments of ``layer_norm_gradient_kernel``."""
    return {
        "x": x,
        "gamma": gamma,
        "grad": grad,
        "grad_x": grad_x,
        "gamma_sums": gamma_sums,
        "beta_sums": beta_sums,
        "eps": eps,
        **_tile_arguments(x),
    }


def split_arguments(
    projected: Tensor, parts: Sequence[Tensor], names: Sequence[str], tile: RowTile
) -> dict[str, Any]:
    """Arguments of ``silu_split_kernel`` or its gradient, which call the parts by ``names``."""
    return {
        "projected": projected,
        **dict(zip(names, parts, strict=True)),
        "num_rows": projected.shape[0],
        **dict(zip("UVQK", (part.shape[1] for part in parts), strict=True)),
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
    }


def split_tile(splits: Sequence[int]) -> RowTile:
    """The tile of the split kernels."""
    return choose_row_tile(min(max(splits), MAX_SPLIT_COLUMNS))


def gate_arguments(
    attention: Tensor,
    gate: Tensor,
    gamma: Tensor,
    beta: Tensor,
    seed: Tensor,
    dropout: float,
    eps: float,
    outputs: dict[str, Tensor],
) -> dict[str, Any]:
    """Arguments of ``gate_kernel`` or, with the gradient's ``outputs``, of ``gate_gradient_kernel``."""
    return {
        "attention": attention,
        "gate": gate,
        "gamma": gamma,
        "beta": beta,
        "seed": seed,
        "eps": eps,
        "keep_count": keep_count(dropout),
        "scale": keep_scale(dropout),
        "DROPOUT": dropout > 0,
        **_tile_arguments(attention),
        **outputs,
    }


def _tile_arguments(rows: Tensor) -> dict[str, int]:
    tile = choose_row_tile(rows.shape[1])
    return {
        "num_rows": rows.shape[0],
        "WIDTH": rows.shape[1],
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
    }


def run_layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """``layer_norm(x)`` in the dtype of ``x``."""
    out, tile = torch.empty_like(x), choose_row_tile(x.shape[1])
    _launch(layer_norm_kernel, (tile.count(x.shape[0]),), layer_norm_arguments(x, gamma, beta, out, eps), tile)
    return out


def run_layer_norm_gradient(
    x: Tensor, gamma: Tensor, beta: Tensor, grad: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, gamma and beta."""
    grad_x, tile = torch.empty_like(x), choose_row_tile(x.shape[1])
    sums = _column_sums(x, tile)
    arguments = layer_norm_gradient_arguments(x, gamma, grad, grad_x, *sums, eps)
    _launch(layer_norm_gradient_kernel, (sums[0].shape[0],), arguments, tile)
    return grad_x, sums[0].sum(0).to(gamma.dtype), sums[1].sum(0).to(beta.dtype)


def run_silu_split(projected: Tensor, splits: Sequence[int]) -> tuple[Tensor, ...]:
    """The four parts of ``silu(projected)``."""
    parts = tuple(projected.new_empty(projected.shape[0], width) for width in splits)
    tile = split_tile(splits)
    arguments = split_arguments(projected, parts, ("u", "v", "q", "k"), tile)
    _launch(silu_split_kernel, (tile.count(projected.shape[0]), len(parts)), arguments, tile)
    return parts


def run_silu_split_gradient(projected: Tensor, grad_parts: Sequence[Tensor]) -> Tensor:
    """The gradient of ``projected``, in the same memory."""
    tile = split_tile([part.shape[1] for part in grad_parts])
    names = ("grad_u", "grad_v", "grad_q", "grad_k")
    arguments = split_arguments(projected, grad_parts, names, tile)
    _launch(silu_split_gradient_kernel, (tile.count(projected.shape[0]), len(grad_parts)), arguments, tile)
    return projected


def run_gate(
    attention: Tensor, gate: Tensor, gamma: Tensor, beta: Tensor, seed: Tensor, dropout: float, eps: float
) -> Tensor:
    """``dropout(gate * layer_norm(attention))``."""
    out, tile = torch.empty_like(attention), choose_row_tile(attention.shape[1])
    arguments = gate_arguments(attention, gate, gamma, beta, seed, dropout, eps, {"out": out})
    _launch(gate_kernel, (tile.count(attention.shape[0]),), arguments, tile)
    return out


def run_gate_gradient(
    attention: Tensor,
    gate: Tensor,
    gamma: Tensor,
    beta: Tensor,
    seed: Tensor,
    grad: Tensor,
    dropout: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the attention, the gate, gamma and beta."""
    grad_attention, grad_gate = torch.empty_like(attention), torch.empty_like(gate)
    tile = choose_row_tile(attention.shape[1])
    gamma_sums, beta_sums = _column_sums(attention, tile)
    outputs = {
        "grad": grad,
        "grad_attention": grad_attention,
        "grad_gate": grad_gate,
        "gamma_sums": gamma_sums,
        "beta_sums": beta_sums,
    }
    arguments = gate_arguments(attention, gate, gamma, beta, seed, dropout, eps, outputs)
    _launch(gate_gradient_kernel, (gamma_sums.shape[0],), arguments, tile)
    return grad_attention, grad_gate, gamma_sums.sum(0).to(gamma.dtype), beta_sums.sum(0).to(beta.dtype)


def _column_sums(rows: Tensor, tile: RowTile) -> tuple[Tensor, Tensor]:
    programs = num_looping_programs(tile, rows.shape[0], rows.device)
    sums = torch.empty((2, programs, rows.shape[1]), dtype=torch.float32, device=rows.device)
    return sums[0], sums[1]


def _launch(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], tile: RowTile) -> None:
    launch_kernel(kernel, grid, arguments, num_warps=tile.num_warps)

"""From tensors to kernel launches: the arguments of each kernel by name, its grid, its buffers.

The AOT resource check takes its cases from the same functions, called on meta tensors.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..launching import launch_kernel
from ..row_tiles import RowTile, choose_row_tile, num_looping_programs
from .reference import rotary_frequencies
from .triton_rms import rms_norm_gradient_kernel, rms_norm_kernel
from .triton_rotary import rotary_kernel
from .triton_swiglu import swiglu_gradient_kernel, swiglu_kernel

MAX_SWIGLU_COLUMNS = 1024


def rms_norm_arguments(x: Tensor, weight: Tensor, eps: float, outputs: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments of ``rms_norm_kernel`` or, with the gradient's ``outputs``, of ``rms_norm_gradient_kernel``."""
    tile = choose_row_tile(x.shape[1])
    return {
        "x": x,
        "weight": weight,
        "eps": eps,
        "num_rows": x.shape[0],
        "WIDTH": x.shape[1],
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        **outputs,
    }


def swiglu_arguments(gate: Tensor, up: Tensor, outputs: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments of ``swiglu_kernel`` or, with the gradient's ``outputs``, of ``swiglu_gradient_kernel``."""
    tile = swiglu_tile(gate.shape[1])
    return {
        "gate": gate,
        "up": up,
        "num_rows": gate.shape[0],
        "gate_stride": gate.stride(0),
        "up_stride": up.stride(0),
        "WIDTH": gate.shape[1],
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        **outputs,
    }


def swiglu_tile(width: int) -> RowTile:
    """The tile of the swiglu kernels, which need no whole rows."""
    return choose_row_tile(min(width, MAX_SWIGLU_COLUMNS))


def rotary_arguments(
    x: Tensor, positions: Tensor, frequencies: Tensor, out: Tensor, direction: float
) -> dict[str, Any]:
    """Arguments of ``rotary_kernel``."""
    tile = choose_row_tile(x.shape[2])
    return {
        "x": x,
        "positions": positions,
        "frequencies": frequencies,
        "out": out,
        "num_tokens": x.shape[0],
        "token_stride": x.stride(0),
        "head_stride": x.stride(1),
        "direction": direction,
        "HEADS": x.shape[1],
        "HALF": x.shape[2] // 2,
        "TOKENS": tile.rows,
        "COLUMNS": max(tile.columns // 2, 16),
    }


def run_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``rms_norm(x)`` of contiguous rows."""
    out, tile = torch.empty_like(x), choose_row_tile(x.shape[1])
    arguments = rms_norm_arguments(x, weight, eps, {"out": out})
    _launch(rms_norm_kernel, (tile.count(x.shape[0]),), arguments, tile)
    return out


def run_rms_norm_gradient(x: Tensor, weight: Tensor, grad: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and of the weight."""
    grad_x, tile = torch.empty_like(x), choose_row_tile(x.shape[1])
    programs = num_looping_programs(tile, x.shape[0], x.device)
    sums = torch.empty((programs, x.shape[1]), dtype=torch.float32, device=x.device)
    outputs = {"grad": grad, "grad_x": grad_x, "weight_sums": sums}
    _launch(rms_norm_gradient_kernel, (programs,), rms_norm_arguments(x, weight, eps, outputs), tile)
    return grad_x, sums.sum(0).to(weight.dtype)


def run_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up``, contiguous."""
    gate_rows, up_rows = _as_rows(gate), _as_rows(up)
    out = torch.empty(gate_rows.shape, dtype=gate.dtype, device=gate.device)
    arguments = swiglu_arguments(gate_rows, up_rows, {"out": out})
    _launch_swiglu(swiglu_kernel, arguments)
    return out.view(gate.shape)


def run_swiglu_gradient(gate: Tensor, up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of both, contiguous."""
    gate_rows, up_rows = _as_rows(gate), _as_rows(up)
    grad_gate, grad_up = (torch.empty(gate_rows.shape, dtype=gate.dtype, device=gate.device) for _ in range(2))
    outputs = {"grad": grad.contiguous(), "grad_gate": grad_gate, "grad_up": grad_up}
    _launch_swiglu(swiglu_gradient_kernel, swiglu_arguments(gate_rows, up_rows, outputs))
    return grad_gate.view(gate.shape), grad_up.view(gate.shape)


def run_rotary(x: Tensor, positions: Tensor, base: float, direction: float) -> Tensor:
    """``x`` turned by its positions times ``direction``, contiguous."""
    if x.stride(2) != 1:
        x = x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    tile = choose_row_tile(x.shape[2])
    frequencies = _frequencies(x.shape[2], base, x.device)
    arguments = rotary_arguments(x, positions, frequencies, out, direction)
    _launch(rotary_kernel, (tile.count(x.shape[0]) if x.numel() else 0,), arguments, tile)
    return out


def _as_rows(tensor: Tensor) -> Tensor:
    rows = tensor.reshape(-1, max(tensor.shape[-1], 1) if tensor.dim() else 1)
    return rows if rows.stride(1) == 1 else rows.contiguous()


@lru_cache(maxsize=32)
def _frequencies(head_dim: int, base: float, device: torch.device) -> Tensor:
    return rotary_frequencies(head_dim, base, torch.float32, device)


def _launch_swiglu(kernel: Any, arguments: dict[str, Any]) -> None:
    tile = swiglu_tile(arguments["WIDTH"])
    grid = (tile.count(arguments["num_rows"]), -(-arguments["WIDTH"] // tile.columns))
    _launch(kernel, grid, arguments, tile)


def _launch(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], tile: RowTile) -> None:
    launch_kernel(kernel, grid, arguments, num_warps=tile.num_warps)

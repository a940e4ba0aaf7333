"""The shipped configurations of the Llama layer operators, for the AOT resource check."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unigrf_kernels.aot.case import CompileCase, compile_case
from unigrf_kernels.ops.llama_layer.launch import (
    rms_norm_arguments,
    rotary_arguments,
    swiglu_arguments,
    swiglu_tile,
)
from unigrf_kernels.ops.llama_layer.triton_rms import rms_norm_gradient_kernel, rms_norm_kernel
from unigrf_kernels.ops.llama_layer.triton_rotary import rotary_kernel
from unigrf_kernels.ops.llama_layer.triton_swiglu import swiglu_gradient_kernel, swiglu_kernel
from unigrf_kernels.ops.row_tiles import MAX_WIDTH, RowTile, choose_row_tile

WIDTHS = ((50, torch.float32), (256, torch.bfloat16), (1024, torch.bfloat16), (MAX_WIDTH, torch.bfloat16))
HEAD_DIMS = ((50, torch.float32), (64, torch.bfloat16), (128, torch.bfloat16), (256, torch.bfloat16))
_NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
_NUM_ROWS = 100_003


def shipped_configurations() -> list[CompileCase]:
    """Every kernel at a narrow odd width, at usual widths and at the widest it accepts."""
    rows = [case for width, dtype in WIDTHS for case in _rows(width, dtype)]
    return rows + [_rotary(head_dim, dtype) for head_dim, dtype in HEAD_DIMS]


def _rows(width: int, dtype: torch.dtype) -> list[CompileCase]:
    rows = torch.empty((_NUM_ROWS, width), dtype=dtype, device="meta")
    half = torch.empty((_NUM_ROWS, 2 * width), dtype=dtype, device="meta")[:, :width]
    weight = torch.empty(width, dtype=dtype, device="meta")
    norm_outputs = {"grad": rows, "grad_x": rows, "weight_sums": torch.empty((7, width), device="meta")}
    swiglu_outputs = {"grad": rows, "grad_gate": rows, "grad_up": rows}
    norm, gate = choose_row_tile(width), swiglu_tile(width)
    kernels = (
        ("rms norm", rms_norm_kernel, norm, rms_norm_arguments(rows, weight, 1e-6, {"out": rows})),
        (
            "rms norm gradient",
            rms_norm_gradient_kernel,
            norm,
            rms_norm_arguments(rows, weight, 1e-6, norm_outputs),
        ),
        ("swiglu", swiglu_kernel, gate, swiglu_arguments(half, half, {"out": rows})),
        ("swiglu gradient", swiglu_gradient_kernel, gate, swiglu_arguments(half, half, swiglu_outputs)),
    )
    return [_case(name, kernel, arguments, tile, rows) for name, kernel, tile, arguments in kernels]


def _rotary(head_dim: int, dtype: torch.dtype) -> CompileCase:
    x = torch.empty((_NUM_ROWS, 12, head_dim), dtype=dtype, device="meta")
    positions = torch.empty(_NUM_ROWS, dtype=torch.int64, device="meta")
    frequencies = torch.empty(head_dim // 2, device="meta")
    arguments = rotary_arguments(x[:, :4], positions, frequencies, x, 1.0)
    return _case("rotary", rotary_kernel, arguments, choose_row_tile(head_dim), x)


def _case(name: str, kernel: Any, arguments: dict[str, Any], tile: RowTile, rows: Tensor) -> CompileCase:
    return compile_case(
        f"llama {name} {_NAMES[rows.dtype]} {rows.shape[-1]}",
        kernel,
        arguments,
        num_warps=tile.num_warps,
        num_stages=1,
        expects_tensor_cores=False,
    )

"""The shipped configurations of the HSTU layer operators, for the AOT resource check."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unigrf_kernels.aot.case import CompileCase, compile_case
from unigrf_kernels.ops.hstu_layer.launch import (
    gate_arguments,
    layer_norm_arguments,
    layer_norm_gradient_arguments,
    split_arguments,
    split_tile,
)
from unigrf_kernels.ops.hstu_layer.triton_gate import gate_gradient_kernel, gate_kernel
from unigrf_kernels.ops.hstu_layer.triton_projection import (
    layer_norm_gradient_kernel,
    layer_norm_kernel,
    silu_split_gradient_kernel,
    silu_split_kernel,
)
from unigrf_kernels.ops.row_tiles import MAX_WIDTH, RowTile, choose_row_tile

WIDTHS = ((50, torch.float32), (256, torch.bfloat16), (1024, torch.bfloat16), (MAX_WIDTH, torch.bfloat16))
_NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
_NUM_ROWS = 100_003


def shipped_configurations() -> list[CompileCase]:
    """Every kernel at a narrow odd width, at usual widths and at the widest it accepts."""
    return [case for width, dtype in WIDTHS for case in (*_norms(width, dtype), *_splits(width, dtype))]


def _norms(width: int, dtype: torch.dtype) -> list[CompileCase]:
    rows = torch.empty((_NUM_ROWS, width), dtype=dtype, device="meta")
    vector = torch.empty(width, dtype=dtype, device="meta")
    sums = torch.empty((7, width), device="meta")
    seed = torch.empty((), dtype=torch.int64, device="meta")
    outputs = {
        "grad": rows,
        "grad_attention": rows,
        "grad_gate": rows,
        "gamma_sums": sums,
        "beta_sums": sums,
    }
    shared = (rows, rows, vector, vector, seed)
    tile = choose_row_tile(width)
    kernels = (
        ("layer norm", layer_norm_kernel, layer_norm_arguments(rows, vector, vector, rows, 1e-6)),
        (
            "layer norm gradient",
            layer_norm_gradient_kernel,
            layer_norm_gradient_arguments(rows, vector, rows, rows, sums, sums, 1e-6),
        ),
        ("gate", gate_kernel, gate_arguments(*shared, 0.0, 1e-6, {"out": rows})),
        ("gate dropout", gate_kernel, gate_arguments(*shared, 0.2, 1e-6, {"out": rows})),
        ("gate gradient", gate_gradient_kernel, gate_arguments(*shared, 0.0, 1e-6, outputs)),
        ("gate dropout gradient", gate_gradient_kernel, gate_arguments(*shared, 0.2, 1e-6, outputs)),
    )
    return [_case(name, kernel, arguments, tile, rows) for name, kernel, arguments in kernels]


def _splits(width: int, dtype: torch.dtype) -> list[CompileCase]:
    projected = torch.empty((_NUM_ROWS, 4 * width), dtype=dtype, device="meta")
    part = torch.empty((_NUM_ROWS, width), dtype=dtype, device="meta")
    tile = split_tile([width] * 4)
    return [
        _case(name, kernel, split_arguments(projected, [part] * 4, names, tile), tile, part)
        for name, kernel, names in (
            ("silu split", silu_split_kernel, ("u", "v", "q", "k")),
            ("silu split gradient", silu_split_gradient_kernel, ("grad_u", "grad_v", "grad_q", "grad_k")),
        )
    ]


def _case(name: str, kernel: Any, arguments: dict[str, Any], tile: RowTile, rows: Tensor) -> CompileCase:
    return compile_case(
        f"hstu {name} {_NAMES[rows.dtype]} {rows.shape[1]}",
        kernel,
        arguments,
        num_warps=tile.num_warps,
        num_stages=1,
        expects_tensor_cores=False,
    )

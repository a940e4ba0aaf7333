"""From tensors to kernel launches: the arguments of each kernel by name, its grid, its buffers.

The AOT resource check takes its cases from the same functions, called on meta tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..launching import launch_kernel
from .buckets import bucket_thresholds
from .triton_forward import forward_kernel
from .triton_key_gradient import key_gradient_kernel
from .triton_query_gradient import query_gradient_kernel
from .triton_reduce import row_term_kernel, sum_rows_kernel, work_list_kernel
from .triton_schedule import Schedule, Tile

ROW_BUFFER_BYTES = 256 * 2**20
"""Largest buffer for rows of bias gradients; larger ones are filled and added in several passes."""

NUM_GROUPS = 32
"""Programs that share the sum of the bias rows of one head and column block."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call as the kernels take it: as in `jagged_attention`, with contiguous last dimensions of q, k and v."""

    q: Tensor
    k: Tensor
    v: Tensor
    offsets: Tensor
    num_candidates: Tensor | None
    position_bias: Tensor | None
    time_bias: Tensor | None
    query_times: Tensor | None
    key_times: Tensor | None
    softmax: bool
    scale: float
    inverse_length: float
    window: int | None
    schedule: Schedule
    query_offsets: Tensor | None = None
    """`[B + 1]` where only the last tokens of each sequence ask, in the forward kernel alone."""

    @property
    def block_d(self) -> int:
        """Head width in the kernels: a power of two, at least 16."""
        return max(16, 1 << (self.q.shape[2] - 1).bit_length())

    def num_items(self, block: int) -> int:
        """Upper bound on the tiles of `block` tokens in all sequences, known without asking the device."""
        if self.q.shape[0] == 0:
            # Spare items of the list would read the time of a first token, which is not there.
            return 0
        return self.q.shape[0] // block + self.offsets.numel() - 1


def work_arguments(call: Call, work: Tensor, block: int) -> dict[str, Any]:
    """Arguments of `work_list_kernel`."""
    return {
        "offsets": call.offsets if call.query_offsets is None else call.query_offsets,
        "work": work,
        "num_sequences": call.offsets.numel() - 1,
        "num_items": work.shape[0],
        "BLOCK": block,
        "CHUNK": 128,
    }


def _shared_arguments(call: Call, tile: Tile, work: Tensor) -> dict[str, Any]:
    num_buckets = 1 if call.time_bias is None else call.time_bias.shape[1]
    has_times = call.time_bias is not None
    thresholds, near_thresholds = _thresholds(num_buckets, call.q.device) if has_times else (None, None)
    return {
        "q": call.q,
        "k": call.k,
        "v": call.v,
        "work": work,
        "offsets": call.offsets,
        "num_candidates": call.num_candidates,
        "position_bias": call.position_bias,
        "time_bias": call.time_bias,
        "thresholds": thresholds,
        "near_thresholds": near_thresholds,
        "query_times": call.query_times if has_times else None,
        "key_times": call.key_times if has_times else None,
        "scale": call.scale,
        "inverse_length": call.inverse_length,
        "window": 0 if call.window is None else min(call.window, 2**30),
        "num_positions": 0 if call.position_bias is None else call.position_bias.shape[1],
        "num_buckets": num_buckets,
        "last_bucket": 0 if thresholds is None else thresholds.numel() - 1,
        "num_tokens": call.q.shape[0],
        "q_stride": call.q.stride(0),
        "q_head_stride": call.q.stride(1),
        "k_stride": call.k.stride(0),
        "k_head_stride": call.k.stride(1),
        "v_stride": call.v.stride(0),
        "v_head_stride": call.v.stride(1),
        "HEADS": call.q.shape[1],
        "GROUP": call.q.shape[1] // call.k.shape[1],
        "D": call.q.shape[2],
        "BLOCK_M": tile.rows,
        "BLOCK_N": tile.cols,
        "BLOCK_D": call.block_d,
        "SOFTMAX": call.softmax,
        "HAS_CANDIDATES": call.num_candidates is not None,
        "HAS_WINDOW": call.window is not None,
        "HAS_POSITION_BIAS": call.position_bias is not None,
        "HAS_TIME_BIAS": has_times,
        "PRECISION": call.schedule.precision if call.q.dtype == torch.float32 else "ieee",
    }


def forward_arguments(call: Call, work: Tensor, out: Tensor, lse: Tensor | None) -> dict[str, Any]:
    """Arguments of `forward_kernel`."""
    shared = _shared_arguments(call, call.schedule.forward, work)
    return {
        **shared,
        "out": out,
        "lse": lse,
        "query_offsets": call.query_offsets,
        "out_stride": out.stride(0),
        "LAST_TOKENS": call.query_offsets is not None,
    }


def key_gradient_arguments(
    call: Call,
    work: Tensor,
    grad: Tensor,
    lse: Tensor | None,
    delta: Tensor | None,
    k_grad: Tensor,
    v_grad: Tensor,
) -> dict[str, Any]:
    """Arguments of `key_gradient_kernel`."""
    return {
        **_shared_arguments(call, call.schedule.key_gradient, work),
        "grad": grad,
        "lse": lse,
        "delta": delta,
        "k_grad": k_grad,
        "v_grad": v_grad,
        "grad_stride": grad.stride(0),
        "k_grad_stride": k_grad.stride(0),
        "SPLIT": call.schedule.split_key_gradient,
    }


def query_gradient_arguments(
    call: Call,
    work: Tensor,
    grad: Tensor,
    lse: Tensor | None,
    delta: Tensor | None,
    q_grad: Tensor,
    position_rows: Tensor | None,
    time_rows: Tensor | None,
    extents: Tensor | None,
    first_item: int,
) -> dict[str, Any]:
    """Arguments of `query_gradient_kernel`."""
    shared = _shared_arguments(call, call.schedule.query_gradient, work)
    return {
        **shared,
        "grad": grad,
        "lse": lse,
        "delta": delta,
        "q_grad": q_grad,
        "position_rows": position_rows,
        "time_rows": time_rows,
        "extents": extents,
        "first_item": first_item,
        "grad_stride": grad.stride(0),
        "BLOCK_B": max(16, 1 << (shared["num_buckets"] - 1).bit_length()),
        "POSITION_GRADIENT": position_rows is not None,
        "TIME_GRADIENT": time_rows is not None,
    }


def row_term_arguments(grad: Tensor, out: Tensor, delta: Tensor, block_d: int) -> dict[str, Any]:
    """Arguments of `row_term_kernel`."""
    return {
        "grad": grad,
        "out": out,
        "delta": delta,
        "num_tokens": grad.shape[0],
        "stride": grad.stride(0),
        "HEADS": grad.shape[1],
        "D": grad.shape[2],
        "BLOCK": 64,
        "BLOCK_D": block_d,
    }


def sum_rows_arguments(rows: Tensor, extents: Tensor, sums: Tensor, limit: int) -> dict[str, Any]:
    """Arguments of `sum_rows_kernel`."""
    return {
        "rows": rows,
        "extents": extents,
        "sums": sums,
        "num_items": rows.shape[0],
        "width": rows.shape[2],
        "limit": limit,
        "HEADS": rows.shape[1],
        "ITEMS": 32,
        "COLUMNS": 128,
    }


def run_forward(call: Call) -> tuple[Tensor, Tensor]:
    """Output `[T, H, D]` and, for softmax, the base-2 logarithm of each row's sum `[H, T]` (else empty)."""
    num_tokens, num_heads, _ = call.q.shape
    out = torch.empty(call.q.shape, dtype=call.q.dtype, device=call.q.device)
    lse = torch.empty((num_heads, num_tokens if call.softmax else 0), dtype=torch.float32, device=call.q.device)
    tile = call.schedule.forward
    work = _work_list(call, tile.rows)
    arguments = forward_arguments(call, work, out, lse if call.softmax else None)
    _launch(forward_kernel, (work.shape[0] * num_heads,), arguments, tile)
    return out, lse


def run_key_gradient(call: Call, grad: Tensor, lse: Tensor | None, delta: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients of keys and values `[T, Hkv, D]`."""
    k_grad = torch.empty(call.k.shape, dtype=call.k.dtype, device=call.k.device)
    v_grad = torch.empty_like(k_grad)
    tile = call.schedule.key_gradient
    work = _work_list(call, tile.cols)
    arguments = key_gradient_arguments(call, work, grad, lse, delta, k_grad, v_grad)
    _launch(key_gradient_kernel, (work.shape[0] * call.k.shape[1],), arguments, tile)
    return k_grad, v_grad


def run_query_gradient(
    call: Call,
    grad: Tensor,
    lse: Tensor | None,
    delta: Tensor | None,
    position_gradient: bool,
    time_gradient: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradient of the queries `[T, H, D]` and, where asked for, of the position and time bias in float32."""
    num_heads = call.q.shape[1]
    device = call.q.device
    tile = call.schedule.query_gradient
    work = _work_list(call, tile.rows)
    num_items = work.shape[0]
    q_grad = torch.empty(call.q.shape, dtype=call.q.dtype, device=device)
    widths = _row_widths(call, position_gradient, time_gradient)
    pass_items = max(1, min(num_items, ROW_BUFFER_BYTES // (4 * num_heads * max(1, sum(widths)))))
    if not (position_gradient or time_gradient):
        pass_items = max(1, num_items)
    buffers = [
        torch.empty((pass_items, num_heads, width), dtype=torch.float32, device=device) if width else None
        for width in widths
    ]
    extents = torch.empty(pass_items, dtype=torch.int32, device=device) if sum(widths) else None
    totals = [
        torch.zeros((num_heads, width), dtype=torch.float32, device=device) if width else None for width in widths
    ]
    limits = (0 if call.position_bias is None else call.position_bias.shape[1], 0)
    for first in range(0, num_items, pass_items):
        count = min(pass_items, num_items - first)
        arguments = query_gradient_arguments(
            call, work, grad, lse, delta, q_grad, buffers[0], buffers[1], extents, first
        )
        _launch(query_gradient_kernel, (count * num_heads,), arguments, tile)
        for rows, total, limit in zip(buffers, totals, limits, strict=True):
            if rows is not None and total is not None and extents is not None:
                total += _sum_rows(rows[:count], extents, limit)
    position_total, time_total = totals
    if position_total is not None:
        position_total = _fold_self_column(position_total, limits[0]) * call.inverse_length
    if time_total is not None:
        time_total = time_total * call.inverse_length
    return q_grad, position_total, time_total


def run_row_term(call: Call, grad: Tensor, out: Tensor) -> Tensor:
    """<grad, out> per row `[H, T]` in float32."""
    num_tokens, num_heads, _ = grad.shape
    delta = torch.empty((num_heads, num_tokens), dtype=torch.float32, device=grad.device)
    arguments = row_term_arguments(grad, out, delta, call.block_d)
    grid = (-(-num_tokens // arguments["BLOCK"]) * num_heads,)
    _launch(row_term_kernel, grid, arguments, Tile(64, 64, 4, 1))
    return delta


def _row_widths(call: Call, position_gradient: bool, time_gradient: bool) -> tuple[int, int]:
    """Columns of a program's rows. Candidates that see themselves have an extra column behind the table's."""
    position = time = 0
    if position_gradient and call.position_bias is not None:
        position = call.position_bias.shape[1] + (call.num_candidates is not None)
    if time_gradient and call.time_bias is not None:
        time = call.time_bias.shape[1]
    return position, time


def _fold_self_column(total: Tensor, num_positions: int) -> Tensor:
    """Add the extra column, whose distance is 0, to the table's first."""
    table = total[:, :num_positions]
    if total.shape[1] > num_positions:
        table[:, 0] += total[:, num_positions]
    return table


def _sum_rows(rows: Tensor, extents: Tensor, limit: int) -> Tensor:
    _, num_heads, width = rows.shape
    sums = torch.empty((NUM_GROUPS, num_heads, width), dtype=torch.float32, device=rows.device)
    arguments = sum_rows_arguments(rows, extents, sums, limit)
    grid = (num_heads, -(-width // arguments["COLUMNS"]), NUM_GROUPS)
    _launch(sum_rows_kernel, grid, arguments, Tile(32, 128, 4, 2))
    return sums.sum(0)


def _work_list(call: Call, block: int) -> Tensor:
    num_sequences = call.offsets.numel() - 1
    work = torch.empty((call.num_items(block), 2), dtype=torch.int32, device=call.q.device)
    grid = (num_sequences + 1 if work.shape[0] else 0,)
    _launch(work_list_kernel, grid, work_arguments(call, work, block), Tile(block, block, 4, 1))
    return work


@lru_cache(maxsize=64)
def _thresholds(num_buckets: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each bucket begins, in 64 bits and cut off at the largest number of 32."""
    thresholds = torch.tensor((0, *bucket_thresholds(num_buckets)), dtype=torch.int64)
    return thresholds.to(device), thresholds.clamp(max=2**31 - 1).to(torch.int32).to(device)


def _launch(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], tile: Tile) -> None:
    launch_kernel(kernel, grid, arguments, num_warps=tile.num_warps, num_stages=tile.num_stages)

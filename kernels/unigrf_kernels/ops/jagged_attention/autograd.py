"""The Triton kernels as PyTorch operators: custom operator, fake tensors, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .triton_schedule import Schedule, architecture, choose_schedule


def triton_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    *,
    activation: str,
    scale: float,
    scaling_length: float | None,
    num_candidates: Tensor | None,
    window: int | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
    max_length: int | None = None,
    query_offsets: Tensor | None = None,
    deterministic: bool = True,
    schedule: Schedule | None = None,
) -> Tensor:
    """`jagged_attention` by the Triton kernels; arguments are checked already, times are `bounded_times`.

    Neither the grid nor a buffer depends on the longest sequence, so the host never waits for the device.
    All sums have a fixed order: results are always bit-equal on repetition.

    Args:
        schedule: tiles to use instead of the shipped ones.
    """
    arguments = (
        q,
        k,
        v,
        offsets,
        num_candidates,
        position_bias,
        time_bias,
        query_times if time_bias is not None else None,
        key_times if time_bias is not None else None,
        activation == "softmax",
        scale,
        1.0 if scaling_length is None else 1.0 / scaling_length,
        window,
        [] if schedule is None else schedule.encode(),
    )
    if query_offsets is not None:
        last: Tensor = _last_tokens(query_offsets, *arguments)
        return last
    out, _ = _forward(*arguments)
    return out


@torch.library.custom_op("unigrf_kernels::jagged_attention", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    num_candidates: Tensor | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
    softmax: bool,
    scale: float,
    inverse_length: float,
    window: int | None,
    schedule: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Output, and the base-2 logarithm of each row's sum `[H, T]` for softmax (`[H, 0]` for silu)."""
    from .launch import run_forward

    call = _call(
        q, k, v, offsets, num_candidates, position_bias, time_bias, query_times, key_times,
        softmax, scale, inverse_length, window, schedule,
    )  # fmt: skip
    out, lse = run_forward(call)
    return _narrow(out, q), lse


@_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    num_candidates: Tensor | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
    softmax: bool,
    scale: float,
    inverse_length: float,
    window: int | None,
    schedule: Sequence[int],
) -> tuple[Tensor, Tensor]:
    num_tokens, num_heads, _ = q.shape
    lse = q.new_empty((num_heads, num_tokens if softmax else 0), dtype=torch.float32)
    return q.new_empty(q.shape), lse


@torch.library.custom_op("unigrf_kernels::jagged_attention_last_tokens", mutates_args=())
def _last_tokens(
    query_offsets: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    num_candidates: Tensor | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
    softmax: bool,
    scale: float,
    inverse_length: float,
    window: int | None,
    schedule: Sequence[int],
) -> Tensor:
    """Output `[Tq, H, D]` of the last tokens of each sequence. An operator apart: it has no gradient."""
    from .launch import run_forward

    call = _call(
        q, k, v, offsets, num_candidates, position_bias, time_bias, query_times, key_times,
        softmax, scale, inverse_length, window, schedule,
    )  # fmt: skip
    out, _ = run_forward(replace(call, query_offsets=query_offsets.contiguous()))
    return _narrow(out, q)


@_last_tokens.register_fake
def _(query_offsets: Tensor, q: Tensor, *_: Any) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.custom_op("unigrf_kernels::jagged_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    out: Tensor | None,
    lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    num_candidates: Tensor | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
    softmax: bool,
    scale: float,
    inverse_length: float,
    window: int | None,
    schedule: Sequence[int],
    needs_query: bool,
    needs_key: bool,
    needs_position_bias: bool,
    needs_time_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and both bias tables; what is not needed is empty."""
    from .launch import run_key_gradient, run_query_gradient, run_row_term

    call = _call(
        q, k, v, offsets, num_candidates, position_bias, time_bias, query_times, key_times,
        softmax, scale, inverse_length, window, schedule,
    )  # fmt: skip
    grad = _widen(grad.contiguous())
    delta = None if out is None else run_row_term(call, grad, _widen(out))
    q_grad, k_grad, v_grad, position_grad, time_grad = (q.new_empty(0) for _ in range(5))
    if needs_key:
        k_grad, v_grad = (_narrow(part, k) for part in run_key_gradient(call, grad, lse, delta))
    if needs_query or needs_position_bias or needs_time_bias:
        q_grad, position_total, time_total = run_query_gradient(
            call, grad, lse, delta, needs_position_bias, needs_time_bias
        )
        q_grad = _narrow(q_grad, q)
        if position_total is not None and position_bias is not None:
            position_grad = position_total.to(position_bias.dtype)
        if time_total is not None and time_bias is not None:
            time_grad = time_total.to(time_bias.dtype)
    return q_grad, k_grad, v_grad, position_grad, time_grad


@_backward.register_fake
def _(
    grad: Tensor,
    out: Tensor | None,
    lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    num_candidates: Tensor | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
    softmax: bool,
    scale: float,
    inverse_length: float,
    window: int | None,
    schedule: Sequence[int],
    needs_query: bool,
    needs_key: bool,
    needs_position_bias: bool,
    needs_time_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(tensor: Tensor | None, needed: bool) -> Tensor:
        return q.new_empty(0) if tensor is None or not needed else tensor.new_empty(tensor.shape)

    any_query = needs_query or needs_position_bias or needs_time_bias
    return (
        like(q, any_query),
        like(k, needs_key),
        like(v, needs_key),
        like(position_bias, needs_position_bias),
        like(time_bias, needs_time_bias),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    tensors, ctx.options = inputs[:9], inputs[9:]
    softmax = ctx.options[0]
    # For softmax the output itself is kept: its producer's consumer keeps it anyway, and <grad, out> saves a pass.
    ctx.save_for_backward(*tensors, *(output if softmax else (None, None)))


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, out, lse = ctx.saved_tensors
    needs = ctx.needs_input_grad
    needs_key = needs[1] or needs[2]
    gradients = _backward(grad, out, lse, *tensors, *ctx.options, needs[0], needs_key, needs[5], needs[6])
    q_grad, k_grad, v_grad, position_grad, time_grad = (
        gradient if needed else None
        for gradient, needed in zip(gradients, (needs[0], needs[1], needs[2], needs[5], needs[6]), strict=True)
    )
    return q_grad, k_grad, v_grad, None, None, position_grad, time_grad, *[None] * 7


_forward.register_autograd(_differentiate, setup_context=_save)


def _call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    num_candidates: Tensor | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
    softmax: bool,
    scale: float,
    inverse_length: float,
    window: int | None,
    schedule: Sequence[int],
) -> Any:
    from .launch import Call

    q, k, v = (_widen(tensor if tensor.stride(2) == 1 else tensor.contiguous()) for tensor in (q, k, v))
    chosen = (
        Schedule.decode(schedule)
        if schedule
        else choose_schedule(
            architecture(q.device),
            q.dtype,
            q.shape[2],
            position_bias=position_bias is not None,
            time_bias=time_bias is not None,
        )
    )
    return Call(
        q=q,
        k=k,
        v=v,
        offsets=offsets.contiguous(),
        num_candidates=_contiguous(num_candidates),
        position_bias=_contiguous(position_bias),
        time_bias=_contiguous(time_bias),
        query_times=_contiguous(query_times),
        key_times=_contiguous(key_times),
        softmax=softmax,
        scale=scale,
        inverse_length=inverse_length,
        window=window,
        schedule=chosen,
    )


def _widen(heads: Tensor) -> Tensor:
    """``[T, H, D]`` with zeros up to the kernels' width, the next power of two from 16 on.

    The kernels hold tiles of that width in any case, so the products cost the same; the copies read and write each
    operand once. In exchange every width runs a configuration whose registers were checked.
    """
    missing = max(16, 1 << (heads.shape[2] - 1).bit_length()) - heads.shape[2]
    return torch.nn.functional.pad(heads, (0, missing)) if missing else heads


def _narrow(heads: Tensor, like: Tensor) -> Tensor:
    """Inverse of `_widen`: the width of ``like``."""
    return heads if heads.shape[2] == like.shape[2] else heads[..., : like.shape[2]].contiguous()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()

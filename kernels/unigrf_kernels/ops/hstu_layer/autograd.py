"""The Triton kernels as PyTorch operators: custom operators, fake tensors, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_Four = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("unigrf_kernels::norm_project_silu", mutates_args=())
def triton_norm_project_silu(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, splits: Sequence[int], eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``norm_project_silu`` by the Triton kernels; arguments are checked already."""
    from .launch import run_layer_norm, run_silu_split

    normed = run_layer_norm(x.contiguous(), norm_weight.contiguous(), norm_bias.contiguous(), eps)
    u, v, q, k = run_silu_split(normed @ weight, splits)
    return u, v, q, k


@triton_norm_project_silu.register_fake
def _(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, splits: Sequence[int], eps: float
) -> _Four:
    u, v, q, k = (x.new_empty(x.shape[0], width) for width in splits)
    return u, v, q, k


@torch.library.custom_op("unigrf_kernels::norm_project_silu_backward", mutates_args=())
def _projection_backward(
    grad_u: Tensor,
    grad_v: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, both norm parameters and the weight."""
    from .launch import run_layer_norm, run_layer_norm_gradient, run_silu_split_gradient

    x, gamma, beta = x.contiguous(), norm_weight.contiguous(), norm_bias.contiguous()
    normed = run_layer_norm(x, gamma, beta, eps)
    grad_parts = [grad.contiguous() for grad in (grad_u, grad_v, grad_q, grad_k)]
    grad_projected = run_silu_split_gradient(normed @ weight, grad_parts)
    grad_weight = normed.t() @ grad_projected
    grad_normed = grad_projected @ weight.t()
    return *run_layer_norm_gradient(x, gamma, beta, grad_normed, eps), grad_weight


@_projection_backward.register_fake
def _(
    grad_u: Tensor,
    grad_v: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    eps: float,
) -> _Four:
    return (
        x.new_empty(x.shape),
        norm_weight.new_empty(norm_weight.shape),
        norm_bias.new_empty(norm_bias.shape),
        weight.new_empty(weight.shape),
    )


def _save_projection(ctx: Any, inputs: tuple[Any, ...], output: _Four) -> None:
    *tensors, _, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_projection(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return *_projection_backward(*grads, *ctx.saved_tensors, ctx.eps), None, None


triton_norm_project_silu.register_autograd(_differentiate_projection, setup_context=_save_projection)


@torch.library.custom_op("unigrf_kernels::gated_norm_dropout", mutates_args=())
def triton_gated_norm_dropout(
    attention: Tensor,
    gate: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    dropout: float,
    seed: Tensor,
    eps: float,
) -> Tensor:
    """``gated_norm_dropout`` by the Triton kernels; arguments are checked already."""
    from .launch import run_gate

    attention, gate = attention.contiguous(), gate.contiguous()
    return run_gate(attention, gate, norm_weight.contiguous(), norm_bias.contiguous(), seed, dropout, eps)


@triton_gated_norm_dropout.register_fake
def _(
    attention: Tensor,
    gate: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    dropout: float,
    seed: Tensor,
    eps: float,
) -> Tensor:
    return attention.new_empty(attention.shape)


@torch.library.custom_op("unigrf_kernels::gated_norm_dropout_backward", mutates_args=())
def _gate_backward(
    grad: Tensor,
    attention: Tensor,
    gate: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    seed: Tensor,
    dropout: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the attention, the gate and both norm parameters."""
    from .launch import run_gate_gradient

    attention, gate, grad = attention.contiguous(), gate.contiguous(), grad.contiguous()
    gamma, beta = norm_weight.contiguous(), norm_bias.contiguous()
    return run_gate_gradient(attention, gate, gamma, beta, seed, grad, dropout, eps)


@_gate_backward.register_fake
def _(
    grad: Tensor,
    attention: Tensor,
    gate: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    seed: Tensor,
    dropout: float,
    eps: float,
) -> _Four:
    return (
        attention.new_empty(attention.shape),
        gate.new_empty(gate.shape),
        norm_weight.new_empty(norm_weight.shape),
        norm_bias.new_empty(norm_bias.shape),
    )


def _save_gate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    attention, gate, norm_weight, norm_bias, ctx.dropout, seed, ctx.eps = inputs
    ctx.save_for_backward(attention, gate, norm_weight, norm_bias, seed)


def _differentiate_gate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_gate_backward(grad, *ctx.saved_tensors, ctx.dropout, ctx.eps), None, None, None


triton_gated_norm_dropout.register_autograd(_differentiate_gate, setup_context=_save_gate)

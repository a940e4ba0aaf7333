"""The Triton kernels as PyTorch operators: custom operators, fake tensors, gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_Two = tuple[Tensor, Tensor]


@torch.library.custom_op("unigrf_kernels::rms_norm", mutates_args=())
def triton_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``rms_norm`` by the Triton kernels; arguments are checked already."""
    from .launch import run_rms_norm

    return run_rms_norm(x.contiguous(), weight.contiguous(), eps)


@triton_rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("unigrf_kernels::rms_norm_backward", mutates_args=())
def _rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight."""
    from .launch import run_rms_norm_gradient

    return run_rms_norm_gradient(x.contiguous(), weight.contiguous(), grad.contiguous(), eps)


@_rms_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> _Two:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _save_rms_norm(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    x, weight, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


def _differentiate_rms_norm(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_rms_norm_backward(grad, *ctx.saved_tensors, ctx.eps), None


triton_rms_norm.register_autograd(_differentiate_rms_norm, setup_context=_save_rms_norm)


@torch.library.custom_op("unigrf_kernels::swiglu", mutates_args=())
def triton_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``swiglu`` by the Triton kernels; arguments are checked already."""
    from .launch import run_swiglu

    return run_swiglu(gate, up)


@triton_swiglu.register_fake
def _(gate: Tensor, up: Tensor) -> Tensor:
    return gate.new_empty(gate.shape)


@torch.library.custom_op("unigrf_kernels::swiglu_backward", mutates_args=())
def _swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up."""
    from .launch import run_swiglu_gradient

    return run_swiglu_gradient(gate, up, grad)


@_swiglu_backward.register_fake
def _(grad: Tensor, gate: Tensor, up: Tensor) -> _Two:
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def _save_swiglu(ctx: Any, inputs: _Two, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_swiglu(ctx: Any, grad: Tensor) -> _Two:
    return _swiglu_backward(grad, *ctx.saved_tensors)


triton_swiglu.register_autograd(_differentiate_swiglu, setup_context=_save_swiglu)


def triton_rotary(q: Tensor, k: Tensor, positions: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """``rotary`` by the Triton kernel; arguments are checked already."""
    return _rotary(q, k, positions, base, 1.0)


@torch.library.custom_op("unigrf_kernels::rotary", mutates_args=())
def _rotary(q: Tensor, k: Tensor, positions: Tensor, base: float, direction: float) -> tuple[Tensor, Tensor]:
    """Both turned by their positions, times 1 or -1."""
    from .launch import run_rotary

    positions = positions.contiguous()
    return run_rotary(q, positions, base, direction), run_rotary(k, positions, base, direction)


@_rotary.register_fake
def _(q: Tensor, k: Tensor, positions: Tensor, base: float, direction: float) -> _Two:
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _save_rotary(ctx: Any, inputs: tuple[Any, ...], output: _Two) -> None:
    _, _, positions, ctx.base, ctx.direction = inputs
    ctx.save_for_backward(positions)


def _differentiate_rotary(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor | None, ...]:
    (positions,) = ctx.saved_tensors
    return *_rotary(grad_q, grad_k, positions, ctx.base, -ctx.direction), None, None, None


_rotary.register_autograd(_differentiate_rotary, setup_context=_save_rotary)

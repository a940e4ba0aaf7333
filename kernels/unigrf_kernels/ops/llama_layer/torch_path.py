"""Plain PyTorch path: few passes over the rows, nothing saved that is cheap to make again.

Shapes: ``T`` tokens, ``D`` width of a row or head, ``H`` heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .reference import rotary_angles, statistics_dtype

_ATEN = torch.ops.aten


def torch_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``reference_rms_norm`` in few passes."""
    return _RmsNorm.apply(x, weight, eps)


def torch_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``reference_swiglu`` that saves its arguments only."""
    return _SwiGlu.apply(gate, up)


def torch_rotary(q: Tensor, k: Tensor, positions: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """``reference_rotary`` with few sines."""
    return _Rotary.apply(q, k, positions, base)


class _RmsNorm(torch.autograd.Function):
    """With ``r = 1 / sqrt(mean(x²) + eps)``: ``dx = r (w g - x r² <w g, x> / D)`` and ``dw = (g x)ᵀ r``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        dtype = statistics_dtype(x)
        # The norm reads each row once and stores one number of it; a square would store the row.
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=dtype)
        inverse = norm.square_().div_(x.shape[1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        wide, gamma = x.to(inverse.dtype), weight.to(inverse.dtype)
        product = grad * wide
        correction = (product @ gamma).unsqueeze(1).mul_(inverse**3).div_(-x.shape[1])
        # A product with ``inverse`` would spare a pass, but adds up the rows one by one and rounds each time.
        grad_weight = product.mul_(inverse).sum(0)
        grad_x = (grad * gamma).mul_(inverse).addcmul_(wide, correction)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate = grad * up
        _ATEN.silu_backward.grad_input(grad_gate, gate, grad_input=grad_gate)
        return grad_gate, torch.nn.functional.silu(gate).mul_(grad)


class _Rotary(torch.autograd.Function):
    """A rotation's transpose turns back: the backward pass is the forward with the sines' sign changed."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, positions: Tensor, base: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(positions)
        ctx.base = base
        cos, sin = _cos_sin(positions, q, base)
        return _rotate(q, cos, sin), _rotate(k, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (positions,) = ctx.saved_tensors
        cos, sin = _cos_sin(positions, grad_q, ctx.base)
        return _rotate(grad_q, cos, -sin), _rotate(grad_k, cos, -sin), None, None


def _cos_sin(positions: Tensor, like: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """Two ``[T, 1, D / 2]``. On the CPU each position's are computed once, however many tokens share it."""
    dtype, head_dim = statistics_dtype(like), like.shape[2]
    if positions.device.type != "cpu" or positions.numel() == 0:
        angles = rotary_angles(positions, head_dim, base, dtype).unsqueeze(1)
        return angles.cos(), angles.sin()
    first, last = (int(position) for position in positions.aminmax())
    if last - first >= positions.numel():
        angles = rotary_angles(positions, head_dim, base, dtype).unsqueeze(1)
        return angles.cos(), angles.sin()
    table = rotary_angles(torch.arange(first, last + 1), head_dim, base, dtype).unsqueeze(1)
    rows = positions - first
    return table.cos().index_select(0, rows), table.sin().index_select(0, rows)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    halves = x.to(cos.dtype).unflatten(2, (2, -1))
    out = torch.empty_like(halves, memory_format=torch.contiguous_format)
    torch.mul(halves, cos.unsqueeze(2), out=out)
    out[:, :, 0].addcmul_(halves[:, :, 1], sin, value=-1)
    out[:, :, 1].addcmul_(halves[:, :, 0], sin)
    return out.flatten(2).to(x.dtype)

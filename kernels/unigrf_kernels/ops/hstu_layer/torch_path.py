"""Plain PyTorch path: blocks of rows that stay in a core's cache, nothing saved that is cheap to compute again.

Shapes: ``T`` rows, ``D`` width of the block's input, ``N`` width of one part of the projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..dropout.constants import keep_scale
from ..dropout.torch_path import keep_mask, masked

_ATEN = torch.ops.aten
# 1024 rows of 4 x 50 floats are 0.8 MB, less than half of a core's 2 MB cache. 512 to 2048 rows were equally
# fast; without blocks the forward and backward took a third longer.
_BLOCK_ROWS = 1024


def torch_norm_project_silu(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, splits: Sequence[int], eps: float
) -> tuple[Tensor, ...]:
    """``reference_norm_project_silu`` in blocks of rows."""
    return _NormProjectSilu.apply(x, norm_weight, norm_bias, weight, tuple(splits), eps)


def torch_gated_norm_dropout(
    attention: Tensor,
    gate: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    dropout: float,
    seed: Tensor,
    eps: float,
) -> Tensor:
    """``reference_gated_norm_dropout`` in blocks of rows."""
    return _GatedNormDropout.apply(attention, gate, norm_weight, norm_bias, dropout, seed, eps)


class _NormProjectSilu(torch.autograd.Function):
    """Saves its inputs only. A second GEMM costs less than writing and reading ``[T, 4 N]`` pre-activations."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor,
        splits: tuple[int, ...],
        eps: float,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, norm_weight, norm_bias, weight)
        ctx.splits, ctx.eps = splits, eps
        gamma, beta = _statistics_dtype(x, norm_weight), _statistics_dtype(x, norm_bias)
        weights = [part.contiguous() for part in weight.split(splits, dim=1)]
        parts = tuple(x.new_empty(x.shape[0], width) for width in splits)
        for rows in _blocks(x):
            normed = torch.native_layer_norm(x[rows], x.shape[1:], gamma, beta, eps)[0]
            for part, part_weight in zip(parts, weights, strict=True):
                torch.mm(normed, part_weight, out=part[rows])
                torch.nn.functional.silu(part[rows], inplace=True)
        return parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_parts: Tensor) -> tuple[Tensor | None, ...]:
        x, norm_weight, norm_bias, weight = ctx.saved_tensors
        gamma, beta = _statistics_dtype(x, norm_weight), _statistics_dtype(x, norm_bias)
        weight_transposed = weight.t().contiguous()
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        grad_gamma, grad_beta = torch.zeros_like(gamma), torch.zeros_like(beta)
        grad_weight = torch.zeros(weight.shape, dtype=gamma.dtype, device=weight.device)
        for rows in _blocks(x):
            normed, mean, rstd = torch.native_layer_norm(x[rows], x.shape[1:], gamma, beta, ctx.eps)
            projected = normed @ weight
            grad = torch.cat([part[rows] for part in grad_parts], dim=1)
            _ATEN.silu_backward.grad_input(grad, projected, grad_input=projected)
            grad_weight += normed.t() @ projected
            block, block_gamma, block_beta = _ATEN.native_layer_norm_backward(
                projected @ weight_transposed, x[rows], x.shape[1:], mean, rstd, gamma, beta, [True] * 3
            )
            grad_x[rows] = block
            grad_gamma += block_gamma
            grad_beta += block_beta
        return (
            grad_x,
            grad_gamma.to(norm_weight.dtype),
            grad_beta.to(norm_bias.dtype),
            grad_weight.to(weight.dtype),
            None,
            None,
        )


class _GatedNormDropout(torch.autograd.Function):
    """Saves the normalised rows, as plain autograd would, and the mask, one byte per element.

    Blocks of rows gain nothing here, and computing either of the two again costs more than reading it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        attention: Tensor,
        gate: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        dropout: float,
        seed: Tensor,
        eps: float,
    ) -> Tensor:
        # What dropout keeps is scaled through the parameters of the norm, which costs no pass over the rows.
        ctx.scale = keep_scale(dropout)
        gamma = _statistics_dtype(attention, norm_weight) * ctx.scale
        beta = _statistics_dtype(attention, norm_bias) * ctx.scale
        normed, mean, rstd = torch.native_layer_norm(attention, attention.shape[1:], gamma, beta, eps)
        keep = keep_mask(seed, attention.numel(), dropout).view(attention.shape) if dropout else None
        ctx.save_for_backward(attention, gate, norm_weight, norm_bias, normed, mean, rstd, keep)
        return gate * normed if keep is None else masked(normed, keep).mul_(gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        attention, gate, norm_weight, norm_bias, normed, mean, rstd, keep = ctx.saved_tensors
        gamma = _statistics_dtype(attention, norm_weight) * ctx.scale
        beta = _statistics_dtype(attention, norm_bias) * ctx.scale
        grad_kept = grad_out if keep is None else masked(grad_out, keep)
        grad_attention, grad_gamma, grad_beta = _ATEN.native_layer_norm_backward(
            grad_kept * gate, attention, attention.shape[1:], mean, rstd, gamma, beta, [True] * 3
        )
        grad_norm_weight = (grad_gamma * ctx.scale).to(norm_weight.dtype)
        grad_norm_bias = (grad_beta * ctx.scale).to(norm_bias.dtype)
        return grad_attention, grad_kept * normed, grad_norm_weight, grad_norm_bias, None, None, None


def _blocks(rows: Tensor) -> Iterator[slice]:
    """Slices that cover the rows: cache-sized ones on the CPU, a single one elsewhere."""
    size = _BLOCK_ROWS if rows.device.type == "cpu" else max(rows.shape[0], 1)
    for start in range(0, rows.shape[0], size):
        yield slice(start, start + size)


def _statistics_dtype(rows: Tensor, vector: Tensor) -> Tensor:
    """``vector`` in the dtype that makes the CPU's norm keep its statistics in fp32 for half-precision rows.

    On CUDA they are fp32 in any case, and the norm there wants its parameters in the dtype of the rows.
    """
    half = rows.dtype in (torch.bfloat16, torch.float16) and rows.device.type == "cpu"
    return vector.to(torch.float32 if half else rows.dtype)

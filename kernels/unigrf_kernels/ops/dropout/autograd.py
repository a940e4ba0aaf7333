"""The Triton kernel as a PyTorch operator: custom operator, fake tensor, gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("unigrf_kernels::seeded_dropout", mutates_args=())
def triton_dropout(x: Tensor, seed: Tensor, dropout: float) -> Tensor:
    """``seeded_dropout`` by the Triton kernel; arguments are checked already."""
    from .triton_dropout import run_dropout

    return run_dropout(x, seed, dropout)


@triton_dropout.register_fake
def _(x: Tensor, seed: Tensor, dropout: float) -> Tensor:
    return x.new_empty(x.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    _, seed, ctx.dropout = inputs
    ctx.save_for_backward(seed)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (seed,) = ctx.saved_tensors
    return triton_dropout(grad, seed, ctx.dropout), None, None


triton_dropout.register_autograd(_differentiate, setup_context=_save)

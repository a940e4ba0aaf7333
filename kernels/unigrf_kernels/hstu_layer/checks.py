"""The contracts of the HSTU layer pieces: each rule once, with the message a caller gets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_PARTS = 4
"""u, v, q and k."""


def check_projection(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, splits: Sequence[int], eps: float
) -> None:
    """Rules of ``norm_project_silu``."""
    _check_rows("x", x, "D")
    check_norm(x, norm_weight, norm_bias, eps)
    if len(splits) != NUM_PARTS or min(splits) < 1:
        raise ValueError(f"splits must be {NUM_PARTS} positive widths (u, v, q, k), got {tuple(splits)}")
    expected = [x.shape[1], sum(splits)]
    if list(weight.shape) != expected:
        raise ValueError(f"weight must have shape {expected}, got {list(weight.shape)}")
    _check_like("weight", weight, "x", x)


def check_gate(attention: Tensor, gate: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float) -> None:
    """Rules of ``gated_norm_dropout``, but for those of the dropout."""
    _check_rows("attention", attention, "N")
    check_norm(attention, norm_weight, norm_bias, eps)
    if gate.shape != attention.shape:
        raise ValueError(f"gate must have shape {list(attention.shape)}, got {list(gate.shape)}")
    _check_like("gate", gate, "attention", attention)


def check_norm(rows: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float) -> None:
    """Rules of the affine parameters of a LayerNorm over ``rows``."""
    for name, vector in (("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if list(vector.shape) != [rows.shape[1]]:
            raise ValueError(f"{name} must have shape [{rows.shape[1]}], got {list(vector.shape)}")
        if vector.dtype not in (rows.dtype, torch.float32):
            raise TypeError(f"{name} must be {rows.dtype} or torch.float32, got {vector.dtype}")
        if vector.device != rows.device:
            raise ValueError(f"{name} must be on {rows.device}, got {vector.device}")
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")


def _check_rows(name: str, rows: Tensor, width: str) -> None:
    if rows.dim() != 2 or rows.shape[1] < 1:
        raise ValueError(f"{name} must have shape [T, {width}], got {list(rows.shape)}")
    if not rows.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {rows.dtype}")


def _check_like(name: str, tensor: Tensor, model_name: str, model: Tensor) -> None:
    if tensor.dtype != model.dtype:
        raise TypeError(f"{name} must be {model.dtype} like {model_name}, got {tensor.dtype}")
    if tensor.device != model.device:
        raise ValueError(f"{name} must be on {model.device}, got {tensor.device}")

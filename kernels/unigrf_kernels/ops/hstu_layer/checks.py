"""The contracts of the HSTU layer operators: each rule once, with the message a caller gets."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..row_checks import check_eps, check_like, check_rows, check_scale_vector

NUM_PARTS = 4
"""u, v, q and k."""


def check_projection(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, splits: Sequence[int], eps: float
) -> None:
    """Rules of ``norm_project_silu``."""
    check_rows("x", x, "D")
    check_norm(x, norm_weight, norm_bias, eps)
    if len(splits) != NUM_PARTS or min(splits) < 1:
        raise ValueError(f"splits must be {NUM_PARTS} positive widths (u, v, q, k), got {list(splits)}")
    expected = [x.shape[1], sum(splits)]
    if list(weight.shape) != expected:
        raise ValueError(f"weight must have shape {expected}, got {list(weight.shape)}")
    check_like("weight", weight, "x", x)


def check_gate(attention: Tensor, gate: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float) -> None:
    """Rules of ``gated_norm_dropout``, but for those of the dropout."""
    check_rows("attention", attention, "N")
    check_norm(attention, norm_weight, norm_bias, eps)
    if gate.shape != attention.shape:
        raise ValueError(f"gate must have shape {list(attention.shape)}, got {list(gate.shape)}")
    check_like("gate", gate, "attention", attention)


def check_norm(rows: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float) -> None:
    """Rules of the parameters of a LayerNorm over ``rows``."""
    check_scale_vector("norm_weight", norm_weight, rows)
    check_scale_vector("norm_bias", norm_bias, rows)
    check_eps(eps)

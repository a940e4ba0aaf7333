"""The contracts of the Llama layer operators: each rule once, with the message a caller gets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..row_checks import (
    check_device,
    check_eps,
    check_floating,
    check_like,
    check_rows,
    check_scale_vector,
    dtype_name,
)


def check_rms_norm(x: Tensor, weight: Tensor, eps: float) -> None:
    """Rules of ``rms_norm``."""
    check_rows("x", x, "D")
    check_scale_vector("weight", weight, x)
    check_eps(eps)


def check_swiglu(gate: Tensor, up: Tensor) -> None:
    """Rules of ``swiglu``."""
    check_floating("gate", gate)
    if up.shape != gate.shape:
        raise ValueError(f"up must have shape {list(gate.shape)}, got {list(up.shape)}")
    check_like("up", up, "gate", gate)


def check_rotary(q: Tensor, k: Tensor, positions: Tensor, base: float) -> None:
    """Rules of ``rotary``."""
    if q.dim() != 3:
        raise ValueError(f"q must have shape [T, H, D], got {list(q.shape)}")
    num_tokens, _, head_dim = q.shape
    if head_dim < 2 or head_dim % 2:
        raise ValueError(f"q must have an even head dimension, got {head_dim}")
    if k.dim() != 3 or k.shape[0] != num_tokens or k.shape[2] != head_dim:
        raise ValueError(f"k must have shape [{num_tokens}, Hkv, {head_dim}], got {list(k.shape)}")
    check_floating("q", q)
    check_like("k", k, "q", q)
    if list(positions.shape) != [num_tokens]:
        raise ValueError(f"positions must have shape [{num_tokens}], got {list(positions.shape)}")
    if positions.dtype != torch.int64:
        raise TypeError(f"positions must be int64, got {dtype_name(positions.dtype)}")
    check_device("positions", positions, q)
    if not base > 1:
        raise ValueError(f"base must be above 1, got {base}")

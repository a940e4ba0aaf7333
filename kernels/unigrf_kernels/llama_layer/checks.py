"""The contracts of the Llama layer pieces: each rule once, with the message a caller gets."""

from __future__ import annotations

import torch
from torch import Tensor


def check_rms_norm(x: Tensor, weight: Tensor, eps: float) -> None:
    """Rules of ``rms_norm``."""
    if x.dim() != 2 or x.shape[1] < 1:
        raise ValueError(f"x must have shape [T, D], got {list(x.shape)}")
    _check_floating("x", x)
    if list(weight.shape) != [x.shape[1]]:
        raise ValueError(f"weight must have shape [{x.shape[1]}], got {list(weight.shape)}")
    if weight.dtype not in (x.dtype, torch.float32):
        raise TypeError(f"weight must be {x.dtype} or torch.float32, got {weight.dtype}")
    _check_device("weight", weight, x)
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")


def check_swiglu(gate: Tensor, up: Tensor) -> None:
    """Rules of ``swiglu``."""
    _check_floating("gate", gate)
    if up.shape != gate.shape:
        raise ValueError(f"up must have shape {list(gate.shape)}, got {list(up.shape)}")
    _check_like("up", up, "gate", gate)


def check_rotary(q: Tensor, k: Tensor, positions: Tensor, base: float) -> None:
    """Rules of ``rotary``."""
    if q.dim() != 3:
        raise ValueError(f"q must have shape [T, H, D], got {list(q.shape)}")
    num_tokens, _, head_dim = q.shape
    if head_dim < 2 or head_dim % 2:
        raise ValueError(f"q must have an even head dimension, got {head_dim}")
    if k.dim() != 3 or k.shape[0] != num_tokens or k.shape[2] != head_dim:
        raise ValueError(f"k must have shape [{num_tokens}, Hkv, {head_dim}], got {list(k.shape)}")
    _check_floating("q", q)
    _check_like("k", k, "q", q)
    if list(positions.shape) != [num_tokens]:
        raise ValueError(f"positions must have shape [{num_tokens}], got {list(positions.shape)}")
    if positions.dtype != torch.int64:
        raise TypeError(f"positions must be int64, got {positions.dtype}")
    _check_device("positions", positions, q)
    if not base > 1:
        raise ValueError(f"base must be above 1, got {base}")


def _check_floating(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {tensor.dtype}")


def _check_like(name: str, tensor: Tensor, model_name: str, model: Tensor) -> None:
    if tensor.dtype != model.dtype:
        raise TypeError(f"{name} must be {model.dtype} like {model_name}, got {tensor.dtype}")
    _check_device(name, tensor, model)


def _check_device(name: str, tensor: Tensor, model: Tensor) -> None:
    if tensor.device != model.device:
        raise ValueError(f"{name} must be on {model.device}, got {tensor.device}")

"""Rules that the contracts of the layer operators share, with the message a caller gets."""

from __future__ import annotations

import torch
from torch import Tensor

from .row_tiles import MAX_WIDTH

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_rows(name: str, rows: Tensor, width: str) -> None:
    """``rows`` must be a floating point matrix with columns."""
    if rows.dim() != 2 or rows.shape[1] < 1:
        raise ValueError(f"{name} must have shape [T, {width}], got {list(rows.shape)}")
    check_floating(name, rows)


def check_floating(name: str, tensor: Tensor) -> None:
    """``tensor`` must be floating point."""
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {dtype_name(tensor.dtype)}")


def check_like(name: str, tensor: Tensor, model_name: str, model: Tensor) -> None:
    """``tensor`` must have the dtype and device of ``model``."""
    if tensor.dtype != model.dtype:
        expected, got = dtype_name(model.dtype), dtype_name(tensor.dtype)
        raise TypeError(f"{name} must be {expected} like {model_name}, got {got}")
    check_device(name, tensor, model)


def check_device(name: str, tensor: Tensor, model: Tensor) -> None:
    """``tensor`` must be where ``model`` is."""
    if tensor.device != model.device:
        raise ValueError(f"{name} must be on {model.device}, got {tensor.device}")


def check_scale_vector(name: str, vector: Tensor, rows: Tensor) -> None:
    """``vector`` must hold one number per column of ``rows``, in their dtype or fp32."""
    if list(vector.shape) != [rows.shape[1]]:
        raise ValueError(f"{name} must have shape [{rows.shape[1]}], got {list(vector.shape)}")
    if vector.dtype not in (rows.dtype, torch.float32):
        expected = " or ".join(dict.fromkeys((dtype_name(rows.dtype), "float32")))
        raise TypeError(f"{name} must be {expected}, got {dtype_name(vector.dtype)}")
    check_device(name, vector, rows)


def check_eps(eps: float) -> None:
    """``eps`` must keep a row of zeros from a division by zero."""
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")


def check_kernel_operand(name: str, tensor: Tensor) -> None:
    """What the Triton kernels can hold: they compute in fp32."""
    if tensor.dtype not in KERNEL_DTYPES:
        names = ", ".join(dtype_name(dtype) for dtype in KERNEL_DTYPES)
        got = dtype_name(tensor.dtype)
        raise TypeError(f"{name} must be one of {names} for implementation 'triton', got {got}; use 'torch'")


def check_kernel_rows(name: str, rows: Tensor) -> None:
    """What the Triton kernels that keep whole rows in registers can hold."""
    check_kernel_operand(name, rows)
    if rows.shape[1] > MAX_WIDTH:
        raise ValueError(
            f"{name} must have at most {MAX_WIDTH} columns for implementation 'triton', "
            f"got {rows.shape[1]}; use 'torch'"
        )


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` and the like."""
    return str(dtype).removeprefix("torch.")

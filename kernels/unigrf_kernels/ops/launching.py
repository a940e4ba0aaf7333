"""Launches a kernel on the device of its tensors: Triton itself takes the device that is current."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor


def launch_kernel(kernel: Any, grid: tuple[int, ...], arguments: Mapping[str, Any], **options: int) -> None:
    """Launch ``kernel[grid](**arguments)`` unless the grid is empty.

    Args:
        kernel: a ``@triton.jit`` function.
        grid: programs along up to three axes; the second and third take at most 65,535.
        arguments: its arguments by name; at least one is a tensor, and all tensors are on one device.
        options: ``num_warps`` and, where it matters, ``num_stages``.
    """
    if 0 in grid:
        return
    device = next(argument.device for argument in arguments.values() if isinstance(argument, Tensor))
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](**arguments, **options)

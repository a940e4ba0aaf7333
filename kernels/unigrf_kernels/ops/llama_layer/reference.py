"""The definitions, in the dtype of the inputs; statistics and angles in fp32, or fp64 for fp64 inputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu


def reference_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x²) + eps) * weight`` along rows."""
    wide = x.to(statistics_dtype(x))
    normed = wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + eps)
    return (normed * weight).to(x.dtype)


def reference_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up``."""
    return silu(gate) * up


def reference_rotary(q: Tensor, k: Tensor, positions: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """Rotates the pairs ``(x[i], x[i + D/2])`` by ``positions * base^(-2 i / D)``."""
    angles = rotary_angles(positions, q.shape[2], base, statistics_dtype(q))
    cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
    return _rotate(q, cos, sin), _rotate(k, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.to(cos.dtype).chunk(2, dim=2)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=2).to(x.dtype)


def rotary_angles(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype) -> Tensor:
    """``[T, D / 2]`` radians."""
    frequencies = rotary_frequencies(head_dim, base, dtype, positions.device)
    return positions.to(dtype).unsqueeze(1) * frequencies


def rotary_frequencies(head_dim: int, base: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[D / 2]`` radians per position. They are few: computed in fp64, so that all implementations agree."""
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim
    return (base**-exponents).to(dtype)


def statistics_dtype(x: Tensor) -> torch.dtype:
    """fp32, or fp64 for fp64 inputs."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32

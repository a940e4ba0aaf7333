"""Learned attention biases, which every backbone may have."""

from __future__ import annotations

import torch
from torch import nn

_INIT_STD = 0.02


def bias_table(enabled: bool, heads: int, size: int) -> nn.Parameter | None:
    """``[heads, size]`` biases near zero, or None where the configuration has none."""
    return nn.Parameter(torch.randn(heads, size) * _INIT_STD) if enabled else None

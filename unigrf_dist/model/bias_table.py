"""Learned attention biases, which every backbone may have."""

from __future__ import annotations

import torch
from torch import nn

_INIT_STD = 0.02


def bias_table(wanted: bool, heads: int, entries: int) -> nn.Parameter | None:
    """``[heads, entries]`` biases near zero, or None where the configuration wants none."""
    return nn.Parameter(torch.randn(heads, entries) * _INIT_STD) if wanted else None

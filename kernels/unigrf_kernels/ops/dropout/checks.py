"""The contract of seeded dropout, shared by every operator that drops."""

from __future__ import annotations

import torch
from torch import Tensor

from ..row_checks import dtype_name
from .constants import MAX_ELEMENTS

_SEED_RANGE = (-(2**63), 2**63 - 1)


def check_dropout(dropout: float, numel: int) -> None:
    """Rules on the probability and on how many elements one mask may cover."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
    if dropout and numel > MAX_ELEMENTS:
        raise ValueError(f"dropout must cover at most {MAX_ELEMENTS} elements, got {numel}")


def seed_tensor(seed: int | Tensor, device: torch.device) -> Tensor:
    """``seed`` as a 0-d int64 tensor on ``device``.

    Raises:
        ValueError: it has dimensions or does not fit into 64 bits.
        TypeError: it is not an integer.
    """
    if not isinstance(seed, Tensor):
        if isinstance(seed, bool) or not isinstance(seed, (int, torch.SymInt)):
            raise TypeError(f"seed must be an int or a 0-d int64 tensor, got {type(seed).__name__}")
        if not _SEED_RANGE[0] <= seed <= _SEED_RANGE[1]:
            raise ValueError(f"seed must fit into 64 bits, got {seed}")
        return torch.full((), seed, dtype=torch.int64, device=device)
    if seed.dim() != 0:
        raise ValueError(f"seed must have shape [], got {list(seed.shape)}")
    if seed.dtype != torch.int64:
        raise TypeError(f"seed must be int64, got {dtype_name(seed.dtype)}")
    return seed.to(device)

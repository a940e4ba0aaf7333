"""Gradients that belong to the same hidden row add up before a norm is taken."""

from __future__ import annotations

import torch
from torch import Tensor


def merge_duplicates(rows: Tensor, gradients: Tensor, num_rows: int) -> Tensor:
    """Move the sum of each hidden row's gradients to the first of them and zero the others, in place.

    Args:
        rows: ``[P]`` int64 below ``num_rows``, the hidden row that each gradient belongs to.
        gradients: ``[P, D]``.
        num_rows: rows of the hidden matrix.
    """
    indices = torch.arange(rows.numel(), device=rows.device)
    first = torch.full((num_rows,), rows.numel(), device=rows.device)
    first.scatter_reduce_(0, rows, indices, "amin")
    owner = first[rows]
    repeated = (owner != indices).nonzero().squeeze(1)
    if repeated.numel():
        gradients.index_add_(0, owner[repeated], gradients[repeated])
        gradients.index_fill_(0, repeated, 0)
    return gradients

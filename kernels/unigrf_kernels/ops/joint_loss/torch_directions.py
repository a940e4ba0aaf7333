"""Unit vectors and the way of a gradient back through their normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import EPSILON, Problem

SMALLER = 2.0**-70
"""A power of two, so that the product is exact, which makes squares of any fp32 number representable."""


class Directions:
    """``[N, D]`` vectors as ``unit``: in the accumulator's dtype, of length 1 where the problem asks for it."""

    def __init__(self, vectors: Tensor, problem: Problem) -> None:
        self.unit = vectors.to(problem.accumulator)
        self.normalize = problem.normalize
        if self.normalize:
            norms = safe_norms(self.unit)
            # Below the least norm the divisor is a constant: nothing is projected out of the gradient.
            self.is_projected = norms > EPSILON
            self.inverse_norms = norms.clamp_(min=EPSILON).reciprocal_()
            self.unit = self.unit * self.inverse_norms

    def gradient(self, unit_gradient: Tensor) -> Tensor:
        """``[N, D]`` gradient of ``unit``, overwritten → gradient of the vectors."""
        if self.normalize:
            along = row_products(self.unit, unit_gradient)[:, None] * self.is_projected
            unit_gradient.addcmul_(self.unit, along, value=-1).mul_(self.inverse_norms)
        return unit_gradient


def safe_norms(vectors: Tensor) -> Tensor:
    """``[N, 1]`` lengths of ``[N, D]`` vectors, also where a square exceeds the dtype's range."""
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    if bool(norms.isinf().any()):
        smaller = torch.linalg.vector_norm(vectors * SMALLER, dim=1, keepdim=True)
        norms = torch.where(norms.isinf(), smaller / SMALLER, norms)
    return norms


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """``[N]`` inner products of the rows of two ``[N, D]``."""
    return torch.bmm(a[:, None], b[:, :, None]).view(-1)

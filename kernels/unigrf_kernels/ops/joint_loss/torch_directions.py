"""Unit vectors and the way of a gradient back through their normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import EPSILON, Problem


class Directions:
    """``[N, D]`` vectors as ``unit``: in the accumulator's dtype, of length 1 where the problem asks for it."""

    def __init__(self, vectors: Tensor, problem: Problem) -> None:
        self.unit = vectors.to(problem.accumulator)
        self.normalize = problem.normalize
        if self.normalize:
            norms = torch.linalg.vector_norm(self.unit, dim=1, keepdim=True)
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


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """``[N]`` inner products of the rows of two ``[N, D]``."""
    return torch.bmm(a[:, None], b[:, :, None]).view(-1)

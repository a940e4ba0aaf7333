"""Unit vectors and the way of a gradient back through their normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import EPSILON, Problem


class Directions:
    """``[N, D]`` vectors, transposed to ``unit`` ``[D, N]`` and, where the problem asks for it, of unit length.

    Transposed, because CPU libraries multiply a third faster when the long side is the contiguous one and ``D``
    is small, and because sums over ``D`` then run along vector lanes.
    """

    def __init__(self, vectors: Tensor, problem: Problem) -> None:
        self.unit = torch.empty(vectors.shape[::-1], dtype=problem.accumulator, device=vectors.device)
        self.unit.copy_(vectors.t())
        self.normalize = problem.normalize
        if self.normalize:
            norms = torch.linalg.vector_norm(self.unit, dim=0)
            # Below the least norm the divisor is a constant: nothing is projected out of the gradient.
            self.projected = (norms > EPSILON).to(norms.dtype)
            self.inverse_norms = norms.clamp_(min=EPSILON).reciprocal_()
            self.unit.mul_(self.inverse_norms)

    def gradient(self, unit_gradient: Tensor) -> Tensor:
        """``[D, N]`` gradient of ``unit``, overwritten → ``[N, D]`` gradient of the vectors."""
        if self.normalize:
            along = (self.unit * unit_gradient).sum(0).mul_(self.projected)
            unit_gradient.addcmul_(self.unit, along, value=-1).mul_(self.inverse_norms)
        return unit_gradient.t().contiguous()

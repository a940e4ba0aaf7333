"""How a block's scores become weights, and weight gradients score gradients, in the plain PyTorch path.

Scores are ``[F, N, F, R, C]`` (see `torch_blocks`); a query's row spans the first and the last dimension.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Rows(NamedTuple):
    """What softmax keeps of each query, ``[N, F R, 1]``.

    Attributes:
        log_sums: logarithm of the sum of the row's exponentials.
        dots: product of the output and its gradient.
    """

    log_sums: Tensor
    dots: Tensor


class Sums(NamedTuple):
    """Sums of the exponentials of softmax rows, ``[N, F R, 1]``.

    Attributes:
        divisors: sum relative to the row's largest score; the unnormalised weights are divided by it.
        log_sums: logarithm of the sum of the exponentials themselves.
    """

    divisors: Tensor
    log_sums: Tensor


class Activation(Protocol):
    """Steps between scores and weights. Names that end in ``_`` work in place."""

    value_factor: float
    """A constant factor of the weights, applied to values or output gradients, which are the smaller tensors."""
    keeps_rows: bool
    """Whether backward needs `Rows`."""

    def weigh_(self, scores: Tensor) -> Sums | None:
        """Turn scores into weights; where weights still lack a divisor, return it."""

    def recompute_weights(self, scores: Tensor, spare: Tensor, rows: Rows | None) -> Tensor:
        """The same weights, normalised, in ``scores`` or ``spare``."""

    def differentiate_(self, gradient: Tensor, scores: Tensor, rows: Rows | None) -> None:
        """Turn the weights' gradient into the scores'; ``scores`` is as `recompute_weights` left it."""


class Silu:
    """``weights = silu(scores) / scaling_length``."""

    keeps_rows = False

    def __init__(self, scaling_length: float) -> None:
        self.value_factor = 1 / scaling_length

    def weigh_(self, scores: Tensor) -> None:
        torch.ops.aten.silu_(scores)

    def recompute_weights(self, scores: Tensor, spare: Tensor, rows: Rows | None) -> Tensor:
        torch.ops.aten.silu.out(scores, out=spare)
        return spare

    def differentiate_(self, gradient: Tensor, scores: Tensor, rows: Rows | None) -> None:
        torch.ops.aten.silu_backward.grad_input(gradient, scores, grad_input=gradient)


class Softmax:
    """``weights = softmax(scores)``."""

    value_factor = 1.0
    keeps_rows = True

    def weigh_(self, scores: Tensor) -> Sums:
        # Contiguous rows first: a reduction over both dimensions at once takes a slow path.
        largest = scores.amax(4, keepdim=True).amax(0, keepdim=True)
        scores.sub_(largest).exp_()
        sums = scores.sum(4, keepdim=True).sum(0, keepdim=True)
        shape = (scores.shape[1], -1, 1)
        return Sums(sums.view(shape), (largest + sums.log()).view(shape))

    def recompute_weights(self, scores: Tensor, spare: Tensor, rows: Rows | None) -> Tensor:
        assert rows is not None
        return scores.sub_(rows.log_sums.view(1, *scores.shape[1:4], 1)).exp_()

    def differentiate_(self, gradient: Tensor, scores: Tensor, rows: Rows | None) -> None:
        assert rows is not None
        gradient.sub_(rows.dots.view(1, *scores.shape[1:4], 1)).mul_(scores)

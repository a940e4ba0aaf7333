"""``seeded_dropout``: signature, contract, choice of implementation."""

from __future__ import annotations

from torch import Tensor

from ..implementation import Implementation, resolve_implementation
from ..row_checks import check_floating, check_kernel_operand
from .checks import check_dropout, seed_tensor
from .reference import reference_dropout
from .torch_path import torch_dropout


def seeded_dropout(
    x: Tensor, *, dropout: float, seed: int | Tensor, implementation: Implementation | str = "auto"
) -> Tensor:
    """Dropout with a mask that depends on ``seed`` and on each element's index alone.

    Element ``i`` (row-major) is multiplied by ``keep(seed, i) / P(keep)``, with ``keep`` as defined by
    `reference_keep_mask`: the same in every implementation, on every device, in every dtype. No generator
    state is read or written, so a run is repeated by repeating its seeds. Masks of different seeds are
    independent; give every use in a step its own seed.

    Args:
        x: any shape, floating point, at most 2^33 elements.
        dropout: probability of dropping an element, in [0, 1), rounded to a multiple of 2^-16. 0 returns
            ``x`` itself; a training flag is not needed.
        seed: 64-bit integer, or a 0-d int64 tensor (read on the device, never by the host). A tensor must not
            change before the backward pass has run.
        implementation: ``"auto"`` (Triton on CUDA, else torch), ``"triton"``, ``"torch"``, ``"reference"``.

    Returns:
        Tensor of the shape and dtype of ``x``; once differentiable. The Triton path stores no mask, the torch
        path one byte per element.

    Raises:
        ValueError, TypeError: an argument breaks this contract, or the implementation cannot run here.
    """
    check_floating("x", x)
    check_dropout(dropout, x.numel())
    seed = seed_tensor(seed, x.device)
    chosen = resolve_implementation("seeded_dropout", implementation, x.device)
    if dropout == 0.0:
        return x
    if chosen is Implementation.TRITON:
        from .autograd import triton_dropout

        check_kernel_operand("x", x)
        return triton_dropout(x, seed, dropout)
    run = torch_dropout if chosen is Implementation.TORCH else reference_dropout
    return run(x, dropout=dropout, seed=seed)

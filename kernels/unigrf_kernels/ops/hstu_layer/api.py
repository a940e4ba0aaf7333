"""``norm_project_silu`` and ``gated_norm_dropout``: signatures, contracts, choice of implementation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..dropout.checks import check_dropout, seed_tensor
from ..implementation import Implementation, resolve_implementation
from ..row_checks import check_kernel_rows
from .checks import check_gate, check_projection
from .reference import reference_gated_norm_dropout, reference_norm_project_silu
from .torch_path import torch_gated_norm_dropout, torch_norm_project_silu


def norm_project_silu(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    splits: Sequence[int],
    *,
    eps: float = 1e-6,
    implementation: Implementation | str = "auto",
) -> tuple[Tensor, ...]:
    """What precedes attention in an HSTU block (arXiv 2402.17152, equation 1)::

        silu(layer_norm(x, norm_weight, norm_bias, eps) @ weight).split(splits, dim=1)

    Statistics of the norm are fp32 (fp64 for fp64 inputs); the product is a library GEMM in the dtype of ``x``.
    Only the arguments are saved for the backward pass: the normalised rows and the values before SiLU are
    computed again, see README for what that costs and saves.

    Args:
        x: ``[T, D]`` floating point; T may be 0.
        norm_weight: ``[D]``, dtype of ``x`` or fp32.
        norm_bias: ``[D]``, likewise.
        weight: ``[D, sum(splits)]``, dtype of ``x``.
        splits: widths of u, v, q and k.
        eps: added to the variance.
        implementation: ``"auto"`` (Triton on CUDA, else torch), ``"triton"``, ``"torch"``, ``"reference"``.

    Returns:
        Four contiguous tensors ``[T, splits[i]]`` in the dtype of ``x``, once differentiable in ``x``, both norm
        parameters and ``weight``.

    Raises:
        ValueError, TypeError: an argument breaks this contract, or the implementation cannot run here.
    """
    check_projection(x, norm_weight, norm_bias, weight, splits, eps)
    chosen = resolve_implementation("norm_project_silu", implementation, x.device)
    if chosen is Implementation.TRITON:
        from .autograd import triton_norm_project_silu

        check_kernel_rows("x", x)
        return triton_norm_project_silu(x, norm_weight, norm_bias, weight, splits, eps)
    run = torch_norm_project_silu if chosen is Implementation.TORCH else reference_norm_project_silu
    return run(x, norm_weight, norm_bias, weight, splits, eps)


def gated_norm_dropout(
    attention: Tensor,
    gate: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    *,
    dropout: float,
    seed: int | Tensor,
    eps: float = 1e-6,
    implementation: Implementation | str = "auto",
) -> Tensor:
    """What follows attention in an HSTU block, before its output projection::

        seeded_dropout(gate * layer_norm(attention, norm_weight, norm_bias, eps), dropout, seed)

    Statistics of the norm are fp32 (fp64 for fp64 inputs). The mask is that of ``seeded_dropout``, the same in
    every implementation. Saved for the backward pass: by Triton the arguments alone; the torch path adds the
    normalised rows and one byte per element, as plain autograd would.

    Args:
        attention: ``[T, N]`` floating point; T may be 0.
        gate: ``[T, N]``, dtype of ``attention``.
        norm_weight: ``[N]``, dtype of ``attention`` or fp32.
        norm_bias: ``[N]``, likewise.
        dropout: probability of dropping an element, in [0, 1), rounded to a multiple of 2^-16; 0 in evaluation.
        seed: 64-bit integer, or a 0-d int64 tensor (read on the device, never by the host) that must not change
            before the backward pass has run. Without dropout it has no effect.
        eps: added to the variance.
        implementation: ``"auto"`` (Triton on CUDA, else torch), ``"triton"``, ``"torch"``, ``"reference"``.

    Returns:
        ``[T, N]`` in the dtype of ``attention``, once differentiable in all tensors but the seed.

    Raises:
        ValueError, TypeError: an argument breaks this contract, or the implementation cannot run here.
    """
    check_gate(attention, gate, norm_weight, norm_bias, eps)
    check_dropout(dropout, attention.numel())
    seed = seed_tensor(seed, attention.device)
    chosen = resolve_implementation("gated_norm_dropout", implementation, attention.device)
    if chosen is Implementation.TRITON:
        from .autograd import triton_gated_norm_dropout

        check_kernel_rows("attention", attention)
        return triton_gated_norm_dropout(attention, gate, norm_weight, norm_bias, dropout, seed, eps)
    run = torch_gated_norm_dropout if chosen is Implementation.TORCH else reference_gated_norm_dropout
    return run(attention, gate, norm_weight, norm_bias, dropout, seed, eps)

"""``rms_norm``, ``swiglu`` and ``rotary``: signatures, contracts, choice of implementation."""

from __future__ import annotations

from torch import Tensor

from ..implementation import Implementation, resolve_implementation
from ..row_checks import check_kernel_operand, check_kernel_rows
from .checks import check_rms_norm, check_rotary, check_swiglu
from .reference import reference_rms_norm, reference_rotary, reference_swiglu
from .torch_path import torch_rms_norm, torch_rotary, torch_swiglu


def rms_norm(
    x: Tensor, weight: Tensor, *, eps: float = 1e-6, implementation: Implementation | str = "auto"
) -> Tensor:
    """Root-mean-square norm of rows (arXiv 1910.07467)::

        x / sqrt(mean(x², dim=1) + eps) * weight

    Computed in fp32 (fp64 for fp64 inputs) and rounded once. Saved for the backward pass: the arguments and, by
    the torch path, one number per row.

    Args:
        x: ``[T, D]`` floating point; T may be 0.
        weight: ``[D]``, dtype of ``x`` or fp32.
        eps: added to the mean square.
        implementation: ``"auto"`` (Triton on CUDA, else torch), ``"triton"``, ``"torch"``, ``"reference"``.

    Returns:
        ``[T, D]`` in the dtype of ``x``, once differentiable in ``x`` and ``weight``.

    Raises:
        ValueError, TypeError: an argument breaks this contract, or the implementation cannot run here.
    """
    check_rms_norm(x, weight, eps)
    chosen = resolve_implementation("rms_norm", implementation, x.device)
    if chosen is Implementation.TRITON:
        from .autograd import triton_rms_norm

        check_kernel_rows("x", x)
        return triton_rms_norm(x, weight, eps)
    return (torch_rms_norm if chosen is Implementation.TORCH else reference_rms_norm)(x, weight, eps)


def swiglu(gate: Tensor, up: Tensor, *, implementation: Implementation | str = "auto") -> Tensor:
    """The gated activation of a Llama block (arXiv 2002.05202)::

        silu(gate) * up

    Only the arguments are saved for the backward pass.

    Args:
        gate: any shape, floating point; may be empty.
        up: shape and dtype of ``gate``.
        implementation: ``"auto"`` (Triton on CUDA, else torch), ``"triton"``, ``"torch"``, ``"reference"``.

    Returns:
        Tensor of the shape and dtype of ``gate``, once differentiable in both.

    Raises:
        ValueError, TypeError: an argument breaks this contract, or the implementation cannot run here.
    """
    check_swiglu(gate, up)
    chosen = resolve_implementation("swiglu", implementation, gate.device)
    if chosen is Implementation.TRITON:
        from .autograd import triton_swiglu

        check_kernel_operand("gate", gate)
        return triton_swiglu(gate, up)
    return (torch_swiglu if chosen is Implementation.TORCH else reference_swiglu)(gate, up)


def rotary(
    q: Tensor,
    k: Tensor,
    positions: Tensor,
    *,
    base: float = 10000.0,
    implementation: Implementation | str = "auto",
) -> tuple[Tensor, Tensor]:
    """Rotary positions (arXiv 2104.09864) on packed tokens, for queries and keys at once.

    With ``angle_i = positions[t] * base^(-2 i / D)`` for ``i < D / 2``, in both ``q`` and ``k``::

        out[t, :, i]         = x[t, :, i] * cos(angle_i) - x[t, :, i + D/2] * sin(angle_i)
        out[t, :, i + D/2]   = x[t, :, i + D/2] * cos(angle_i) + x[t, :, i] * sin(angle_i)

    (the pairs of the public Llama checkpoints, halves and not neighbours). Angles are fp32 (fp64 for fp64
    inputs), which leaves them exact to
    10^-3 radian at position 16 384. The Triton kernel is made for angles below 10^5.

    Args:
        q: ``[T, H, D]`` floating point, D even; T may be 0.
        k: ``[T, Hkv, D]``, dtype of ``q``.
        positions: ``[T]`` int64, position of each token in its own sequence. Tokens may share one, as the
            candidates behind a history do.
        base: ratio of the slowest to the fastest wavelength, nearly.
        implementation: ``"auto"`` (Triton on CUDA, else torch), ``"triton"``, ``"torch"``, ``"reference"``.

    Returns:
        The rotated ``q`` and ``k``, contiguous, once differentiable.

    Raises:
        ValueError, TypeError: an argument breaks this contract, or the implementation cannot run here.
    """
    check_rotary(q, k, positions, base)
    chosen = resolve_implementation("rotary", implementation, q.device)
    if chosen is Implementation.TRITON:
        from .autograd import triton_rotary

        check_kernel_operand("q", q)
        return triton_rotary(q, k, positions, base)
    run = torch_rotary if chosen is Implementation.TORCH else reference_rotary
    return run(q, k, positions, base)

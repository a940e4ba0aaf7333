"""Which implementation of an operator runs: one vocabulary and one rule for all operators."""

from __future__ import annotations

import os
from collections.abc import Collection
from enum import Enum

import torch


class Implementation(str, Enum):
    """The implementations an operator may have. All of them compute the same values."""

    AUTO = "auto"
    """Triton for CUDA tensors, torch for all others."""
    TRITON = "triton"
    """Fused kernels; on CPU tensors only under ``TRITON_INTERPRET=1`` (slow, for tests)."""
    TORCH = "torch"
    """Efficient plain PyTorch, on any device."""
    REFERENCE = "reference"
    """The readable definition, in any dtype; memory and speed do not matter there."""


_ALL = (Implementation.TRITON, Implementation.TORCH, Implementation.REFERENCE)


def resolve_implementation(
    operator: str,
    implementation: Implementation | str,
    device: torch.device,
    available: Collection[Implementation] = _ALL,
) -> Implementation:
    """The implementation that ``operator`` runs for tensors on ``device``; never ``AUTO``.

    An explicit choice is obeyed or refused, never replaced by another one.

    Args:
        operator: name of the operator, for messages.
        implementation: ``"auto"``, ``"triton"``, ``"torch"`` or ``"reference"``.
        device: where the operator's tensors are.
        available: implementations that the operator has.

    Raises:
        ValueError: the name is unknown, the operator has no such implementation, or it cannot run on
            ``device``.
    """
    try:
        chosen = Implementation(implementation)
    except ValueError:
        raise _not_available(operator, str(implementation), available) from None
    if chosen is Implementation.AUTO:
        on_gpu = device.type == "cuda" and Implementation.TRITON in available
        return Implementation.TRITON if on_gpu else Implementation.TORCH
    if chosen not in available:
        raise _not_available(operator, chosen.value, available)
    if chosen is Implementation.TRITON and device.type == "cpu" and not triton_is_interpreted():
        raise ValueError(
            f"{operator}: implementation 'triton' needs CUDA tensors, got tensors on {device}; "
            "use 'auto' or 'torch' there, or set TRITON_INTERPRET=1 to run Triton's interpreter"
        )
    return chosen


def _not_available(operator: str, name: str, available: Collection[Implementation]) -> ValueError:
    names = ", ".join(member.value for member in (Implementation.AUTO, *available))
    return ValueError(f"{operator}: implementation must be one of {names}, got {name!r}")


def triton_is_interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, which accepts CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")

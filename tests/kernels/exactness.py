"""The error that an implementation of a layer operator may make.

Error against the float64 reference: at most 2x (outputs) or 5x (gradients) what plain PyTorch makes in the same
dtype, plus one unit in the last place of the largest exact value. What plain PyTorch makes is the largest error
of a few draws: with one row, a single draw's may be 0 by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

FORWARD_FACTOR = 2
BACKWARD_FACTOR = 5
EAGER_DRAWS = 4
TRITON_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Operation = Callable[..., Tensor | tuple[Tensor, ...]]
"""Called with the differentiable tensors in order and the name of an implementation."""
MakeTensors = Callable[[torch.Generator], Sequence[Tensor]]
"""Draws the differentiable tensors of one call, in float64."""


def triton_runs() -> list[object]:
    """Parameters ``("triton", dtype)``.

    Triton's interpreter cuts fp32 off to bfloat16 where every chip rounds it, so that dtype is tested compiled.
    """
    compiled = pytest.param("triton", torch.bfloat16, marks=pytest.mark.gpu)
    return [("triton", torch.float32), ("triton", torch.float16), compiled]


def run(
    operation: Operation, tensors: Sequence[Tensor], implementation: str, device: torch.device | None = None
) -> dict[str, Tensor]:
    """Outputs and gradients by position: ``out0``, …, ``grad0``, …; upstream gradients are fixed waves."""
    leaves = [tensor.detach().to(device).requires_grad_() for tensor in tensors]
    outputs = operation(*leaves, implementation)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    upstream = [upstream_of(output, number) for number, output in enumerate(outputs)]
    gradients = torch.autograd.grad(outputs, leaves, upstream)
    named = {f"out{number}": output.detach() for number, output in enumerate(outputs)}
    return {**named, **{f"grad{number}": gradient for number, gradient in enumerate(gradients)}}


def upstream_of(output: Tensor, number: int) -> Tensor:
    """A gradient for ``output`` that is the same in every dtype that can hold it."""
    wave = torch.sin(torch.arange(output.numel(), dtype=torch.float64) * (1.7 + number)).view(output.shape)
    # Through bfloat16, the coarsest dtype, so that every dtype sees the same numbers.
    return wave.to(torch.bfloat16).to(output.dtype).to(output.device)


def assert_as_exact_as_eager(
    operation: Operation,
    make_tensors: MakeTensors,
    dtype: torch.dtype,
    implementation: str,
    dtypes: Sequence[torch.dtype] | None = None,
) -> None:
    """Hold one call in ``dtype`` (or each tensor in its own of ``dtypes``) against the rule."""
    device = TRITON_DEVICE if implementation == "triton" else torch.device("cpu")
    allowed: dict[str, float] = {}
    for draw in reversed(range(EAGER_DRAWS)):  # ends with draw 0, the one that the implementation gets
        drawn = make_tensors(torch.Generator().manual_seed(draw))
        tensors = [tensor.to(dtypes[number] if dtypes else dtype) for number, tensor in enumerate(drawn)]
        exact = run(operation, [tensor.double() for tensor in tensors], "reference")
        eager = run(operation, tensors, "reference")
        for name, truth in exact.items():
            error = _largest(eager[name].double() - truth)
            allowed[name] = max(error, allowed.get(name, 0.0))
    actual = run(operation, tensors, implementation, device)
    assert actual.keys() == exact.keys()
    for name, truth in exact.items():
        assert actual[name].dtype == eager[name].dtype, name
        assert actual[name].shape == truth.shape, name
        assert actual[name].is_contiguous(), name
        factor = FORWARD_FACTOR if name.startswith("out") else BACKWARD_FACTOR
        limit = factor * allowed[name] + torch.finfo(actual[name].dtype).eps * _largest(truth)
        error = _largest(actual[name].double().cpu() - truth)
        assert error <= limit, f"{name}: error {error:.3e}, allowed {limit:.3e}"


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0

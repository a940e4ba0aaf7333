"""``swiglu`` against the float64 reference, in every implementation, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.exactness import TRITON_DEVICE, assert_as_exact_as_eager, run, triton_runs
from unigrf_kernels.ops.llama_layer import swiglu
from unigrf_kernels.ops.llama_layer.autograd import triton_swiglu

RUNS = [("torch", torch.float32), ("torch", torch.bfloat16), *triton_runs()]
SHAPES = [(0,), (0, 8), (1, 1), (5,), (37, 25), (70, 50), (3, 7, 11), (2, 1500)]


def operation(gate: Tensor, up: Tensor, implementation: str) -> Tensor:
    return swiglu(gate, up, implementation=implementation)


def tensors(shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    return [3 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize(("implementation", "dtype"), RUNS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients(shape: tuple[int, ...], implementation: str, dtype: torch.dtype) -> None:
    assert_as_exact_as_eager(operation, lambda draw: tensors(shape, draw), dtype, implementation)


@settings(max_examples=12)
@given(
    shape=st.tuples(st.integers(0, 70), st.integers(1, 150)),
    implementation=st.sampled_from(["torch", "triton"]),
)
def test_drawn_shapes(shape: tuple[int, int], implementation: str) -> None:
    assert_as_exact_as_eager(operation, lambda draw: tensors(shape, draw), torch.float32, implementation)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_halves_of_one_projection(implementation: str) -> None:
    """The kernel reads them where they lie."""
    fused = torch.randn(41, 2 * 30, generator=torch.Generator().manual_seed(1))
    before = fused.clone()
    gate, up = fused.chunk(2, dim=1)
    actual = run(operation, [gate, up], implementation, TRITON_DEVICE)
    for name, tensor in run(operation, [gate.contiguous(), up.contiguous()], "reference").items():
        torch.testing.assert_close(actual[name].cpu(), tensor)
    assert torch.equal(before, fused)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize("needed", range(2))
def test_each_gradient_alone(needed: int, implementation: str) -> None:
    drawn = [tensor.float() for tensor in tensors((20, 10), torch.Generator().manual_seed(3))]
    leaves = [tensor.to(TRITON_DEVICE).requires_grad_(index == needed) for index, tensor in enumerate(drawn)]
    out = operation(*leaves, implementation)
    (alone,) = torch.autograd.grad(out, [leaves[needed]], torch.ones_like(out))
    both = [tensor.to(TRITON_DEVICE).requires_grad_() for tensor in drawn]
    out = operation(*both, implementation)
    assert torch.equal(alone, torch.autograd.grad(out, both, torch.ones_like(out))[needed])


def test_triton_operator_obeys_the_rules_of_custom_operators() -> None:
    leaves = [torch.randn(9, 6, device=TRITON_DEVICE, requires_grad=True) for _ in range(2)]
    torch.library.opcheck(triton_swiglu, tuple(leaves))


@pytest.mark.parametrize(
    ("gate", "up", "options", "error", "message"),
    [
        (torch.zeros(3).int(), torch.zeros(3).int(), {}, TypeError, "gate must be floating point, got int32"),
        (torch.zeros(3), torch.zeros(4), {}, ValueError, r"up must have shape \[3\], got \[4\]"),
        (torch.zeros(3), torch.zeros(3).half(), {}, TypeError, "up must be float32 like gate, got float16"),
        (torch.zeros(3), torch.zeros(3, device="meta"), {}, ValueError, "up must be on cpu, got meta"),
        (*torch.zeros(2, 3, dtype=torch.float64, device=TRITON_DEVICE), {"implementation": "triton"}, TypeError,
         "gate must be one of float32, bfloat16, float16 for implementation 'triton', got float64; use 'torch'"),
    ],
)  # fmt: skip
def test_refusals(gate: Tensor, up: Tensor, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        swiglu(gate, up, **options)

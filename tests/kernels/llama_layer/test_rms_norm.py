"""``rms_norm`` against the float64 reference, in every implementation, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.exactness import (
    TRITON_DEVICE,
    assert_as_exact_as_eager,
    run,
    triton_runs,
    upstream_of,
)
from unigrf_kernels.ops.llama_layer import rms_norm
from unigrf_kernels.ops.llama_layer.autograd import triton_rms_norm

RUNS = [("torch", torch.float32), ("torch", torch.bfloat16), *triton_runs()]
SHAPES = [(0, 8), (1, 1), (1, 50), (37, 25), (70, 50), (90, 200)]


def operation(eps: float = 1e-6) -> Any:
    def call(x: Tensor, weight: Tensor, implementation: str) -> Tensor:
        return rms_norm(x, weight, eps=eps, implementation=implementation)

    return call


def tensors(num_rows: int, width: int, generator: torch.Generator) -> list[Tensor]:
    x = torch.randn(num_rows, width, generator=generator, dtype=torch.float64)
    return [3 * x - 1, 1 + 0.3 * torch.randn(width, generator=generator, dtype=torch.float64)]


def test_a_row_worked_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    for implementation in ("torch", "triton", "reference"):
        out = rms_norm(
            x.to(TRITON_DEVICE),
            torch.tensor([1.0, 2.0], device=TRITON_DEVICE),
            eps=1e-20,
            implementation=implementation,
        )
        # mean square 12.5
        torch.testing.assert_close(out[0].cpu(), torch.tensor([3.0, 8.0]) / 12.5**0.5)
        assert (out[1] == 0).all()


@pytest.mark.parametrize(("implementation", "dtype"), RUNS)
@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
def test_output_and_gradients(num_rows: int, width: int, implementation: str, dtype: torch.dtype) -> None:
    assert_as_exact_as_eager(operation(), lambda draw: tensors(num_rows, width, draw), dtype, implementation)


@settings(max_examples=16)
@given(
    num_rows=st.integers(0, 90),
    width=st.integers(1, 150),
    implementation=st.sampled_from(["torch", "triton"]),
)
def test_drawn_shapes(num_rows: int, width: int, implementation: str) -> None:
    assert_as_exact_as_eager(
        operation(eps=1e-2), lambda draw: tensors(num_rows, width, draw), torch.float32, implementation
    )


def test_many_rows_add_up_as_exactly_as_eager() -> None:
    assert_as_exact_as_eager(operation(), lambda draw: tensors(20000, 8, draw), torch.float32, "torch")


@pytest.mark.parametrize("implementation", ["torch", pytest.param("triton", marks=pytest.mark.gpu)])
def test_weight_in_fp32_beside_half_precision_rows(implementation: str) -> None:
    assert_as_exact_as_eager(
        operation(),
        lambda draw: tensors(33, 24, draw),
        torch.bfloat16,
        implementation,
        dtypes=(torch.bfloat16, torch.float32),
    )


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize("needed", range(2))
def test_each_gradient_alone(needed: int, implementation: str) -> None:
    drawn = [tensor.float() for tensor in tensors(20, 10, torch.Generator().manual_seed(3))]
    together = run(operation(), drawn, implementation, TRITON_DEVICE)
    leaves = [tensor.to(TRITON_DEVICE).requires_grad_(index == needed) for index, tensor in enumerate(drawn)]
    out = operation()(*leaves, implementation)
    (alone,) = torch.autograd.grad(out, [leaves[needed]], upstream_of(out, 0))
    assert torch.equal(alone, together[f"grad{needed}"])


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_strided_inputs_are_read_and_left_unchanged(implementation: str) -> None:
    x, weight = (tensor.float() for tensor in tensors(20, 10, torch.Generator().manual_seed(5)))
    strided = [x.t().clone().t(), weight.repeat_interleave(2)[::2]]
    before = [tensor.clone() for tensor in strided]
    actual = run(operation(), strided, implementation, TRITON_DEVICE)
    for name, tensor in run(operation(), [x, weight], "reference").items():
        torch.testing.assert_close(actual[name].cpu(), tensor)
    assert all(torch.equal(one, other) for one, other in zip(before, strided, strict=True))


def test_triton_operator_obeys_the_rules_of_custom_operators() -> None:
    leaves = [
        tensor.float().to(TRITON_DEVICE).requires_grad_()
        for tensor in tensors(9, 6, torch.Generator().manual_seed(8))
    ]
    torch.library.opcheck(triton_rms_norm, (*leaves, 1e-6))


GOOD: dict[str, Any] = {"x": torch.zeros(3, 4), "weight": torch.ones(4)}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"x": torch.zeros(4)}, ValueError, r"x must have shape \[T, D\], got \[4\]"),
        ({"x": torch.zeros(3, 4).long()}, TypeError, "x must be floating point, got int64"),
        ({"weight": torch.ones(3)}, ValueError, r"weight must have shape \[4\], got \[3\]"),
        ({"weight": torch.ones(4).bfloat16()}, TypeError, "weight must be float32, got bfloat16"),
        ({"x": torch.zeros(3, 4).half(), "weight": torch.ones(4).bfloat16()}, TypeError,
         "weight must be float16 or float32, got bfloat16"),
        ({"weight": torch.ones(4, device="meta")}, ValueError, "weight must be on cpu, got meta"),
        ({"eps": 0.0}, ValueError, "eps must be positive, got 0.0"),
        ({"x": torch.zeros(1, 8193, device=TRITON_DEVICE), "weight": torch.ones(8193, device=TRITON_DEVICE),
          "implementation": "triton"}, ValueError,
         "x must have at most 8192 columns for implementation 'triton', got 8193; use 'torch'"),
    ],
)  # fmt: skip
def test_refusals(bad: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        rms_norm(**{**GOOD, **bad})

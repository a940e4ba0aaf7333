"""``gated_norm_dropout`` against the float64 reference, in every implementation, and every refusal."""

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
from unigrf_kernels.ops.dropout.reference import reference_keep_mask
from unigrf_kernels.ops.hstu_layer import gated_norm_dropout
from unigrf_kernels.ops.hstu_layer.autograd import triton_gated_norm_dropout

SHAPES = [(0, 8), (1, 1), (1, 50), (37, 25), (70, 50), (130, 200)]
RUNS = [("torch", torch.float32), ("torch", torch.bfloat16), *triton_runs()]


def operation(dropout: float, seed: int | Tensor = 12345, eps: float = 1e-6) -> Any:
    def call(attention: Tensor, gate: Tensor, gamma: Tensor, beta: Tensor, implementation: str) -> Tensor:
        return gated_norm_dropout(
            attention, gate, gamma, beta, dropout=dropout, seed=seed, eps=eps, implementation=implementation
        )

    return call


def tensors(num_rows: int, width: int, generator: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    gamma, beta = 1 + 0.3 * normal(width), 0.2 * normal(width)
    return [3 * normal(num_rows, width) - 1, normal(num_rows, width), gamma, beta]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("implementation", "dtype"), RUNS)
@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
def test_output_and_gradients(
    num_rows: int, width: int, implementation: str, dtype: torch.dtype, dropout: float
) -> None:
    assert_as_exact_as_eager(
        operation(dropout), lambda draw: tensors(num_rows, width, draw), dtype, implementation
    )


@settings(max_examples=16)
@given(
    num_rows=st.integers(0, 90),
    width=st.integers(1, 150),
    dropout=st.floats(0.0, 0.9),
    seed=st.integers(-(2**63), 2**63 - 1),
    implementation=st.sampled_from(["torch", "triton"]),
)
def test_drawn_shapes(num_rows: int, width: int, dropout: float, seed: int, implementation: str) -> None:
    assert_as_exact_as_eager(
        operation(dropout, seed, eps=1e-3),
        lambda draw: tensors(num_rows, width, draw),
        torch.float32,
        implementation,
    )


@pytest.mark.parametrize("implementation", ["torch", "triton", "reference"])
@pytest.mark.parametrize("width", [25, 50, 64])
def test_what_is_dropped_is_what_the_mask_says(width: int, implementation: str) -> None:
    """Rows of odd width begin in the middle of a hash word."""
    attention, gate, gamma, beta = (
        tensor.float().to(TRITON_DEVICE) for tensor in tensors(41, width, torch.Generator().manual_seed(1))
    )
    out = operation(0.4, seed=-6)(attention, gate, gamma, beta, implementation)
    keep = reference_keep_mask(torch.tensor(-6), 41 * width, 0.4).view(41, width)
    assert torch.equal(out.cpu() != 0, keep)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_gradients_vanish_where_dropped(implementation: str) -> None:
    drawn = [tensor.float() for tensor in tensors(20, 25, torch.Generator().manual_seed(2))]
    result = run(operation(0.5), drawn, implementation, TRITON_DEVICE)
    assert torch.equal(result["grad1"] != 0, result["out0"] != 0)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize("needed", range(4))
def test_each_gradient_alone(needed: int, implementation: str) -> None:
    """A tensor that needs no gradient must not change another's."""
    drawn = [tensor.float() for tensor in tensors(20, 10, torch.Generator().manual_seed(3))]
    together = run(operation(0.2), drawn, implementation, TRITON_DEVICE)
    leaves = [tensor.to(TRITON_DEVICE).requires_grad_(index == needed) for index, tensor in enumerate(drawn)]
    out = operation(0.2)(*leaves, implementation)
    (alone,) = torch.autograd.grad(out, [leaves[needed]], upstream_of(out, 0))
    assert torch.equal(alone, together[f"grad{needed}"])


@pytest.mark.parametrize("implementation", ["torch", pytest.param("triton", marks=pytest.mark.gpu)])
def test_norm_in_fp32_beside_half_precision_rows(implementation: str) -> None:
    assert_as_exact_as_eager(
        operation(0.2),
        lambda draw: tensors(33, 24, draw),
        torch.bfloat16,
        implementation,
        dtypes=(torch.bfloat16, torch.bfloat16, torch.float32, torch.float32),
    )


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_strided_inputs_are_read_and_left_unchanged(implementation: str) -> None:
    attention, gate, gamma, beta = (tensor.float() for tensor in tensors(20, 10, torch.Generator().manual_seed(5)))
    strided = [attention.t().clone().t(), torch.cat([gate, gate], 1)[:, :10], gamma, beta]
    before = [tensor.clone() for tensor in strided]
    actual = run(operation(0.2), strided, implementation, TRITON_DEVICE)
    expected = run(operation(0.2), [attention, gate, gamma, beta], "reference")
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name].cpu(), tensor)
    assert all(torch.equal(one, other) for one, other in zip(before, strided, strict=True))


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_repeated_runs_agree_bit_for_bit(implementation: str) -> None:
    drawn = [tensor.float() for tensor in tensors(300, 20, torch.Generator().manual_seed(6))]
    first, second = (run(operation(0.2), drawn, implementation, TRITON_DEVICE) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_dropout_the_seed_has_no_effect() -> None:
    drawn = [tensor.float() for tensor in tensors(20, 10, torch.Generator().manual_seed(7))]
    assert torch.equal(operation(0.0, seed=1)(*drawn, "torch"), operation(0.0, seed=2)(*drawn, "torch"))


def test_triton_operator_obeys_the_rules_of_custom_operators() -> None:
    leaves = [
        tensor.float().to(TRITON_DEVICE).requires_grad_()
        for tensor in tensors(9, 6, torch.Generator().manual_seed(8))
    ]
    seed = torch.tensor(3, device=TRITON_DEVICE)
    torch.library.opcheck(triton_gated_norm_dropout, (*leaves, 0.2, seed, 1e-6))


GOOD: dict[str, Any] = {
    "attention": torch.zeros(3, 4),
    "gate": torch.zeros(3, 4),
    "norm_weight": torch.ones(4),
    "norm_bias": torch.zeros(4),
    "dropout": 0.1,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"attention": torch.zeros(3)}, ValueError, r"attention must have shape \[T, N\], got \[3\]"),
        ({"attention": torch.zeros(3, 4).int()}, TypeError, "attention must be floating point, got int32"),
        ({"gate": torch.zeros(4, 4)}, ValueError, r"gate must have shape \[3, 4\], got \[4, 4\]"),
        ({"gate": torch.zeros(3, 4).half()}, TypeError, "gate must be float32 like attention, got float16"),
        ({"gate": torch.zeros(3, 4, device="meta")}, ValueError, "gate must be on cpu, got meta"),
        ({"norm_weight": torch.ones(3)}, ValueError, r"norm_weight must have shape \[4\], got \[3\]"),
        ({"norm_bias": torch.ones(4).double()}, TypeError, "norm_bias must be float32, got float64"),
        ({"eps": -1.0}, ValueError, "eps must be positive, got -1.0"),
        ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and below 1, got 1.0"),
        ({"seed": "1"}, TypeError, "seed must be an int or a 0-d int64 tensor, got str"),
    ],
)
def test_refusals(bad: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        gated_norm_dropout(**{**GOOD, **bad})


def test_what_the_kernels_cannot_hold_is_refused() -> None:
    rows, vector = torch.zeros(1, 8193, device=TRITON_DEVICE), torch.ones(8193, device=TRITON_DEVICE)
    wide = {"attention": rows, "gate": rows, "norm_weight": vector, "norm_bias": vector}
    expected = "^attention must have at most 8192 columns for implementation 'triton', got 8193; use 'torch'$"
    with pytest.raises(ValueError, match=expected):
        gated_norm_dropout(**{**GOOD, **wide}, implementation="triton")

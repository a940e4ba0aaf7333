"""``norm_project_silu`` against the float64 reference, in every implementation, and every refusal."""

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
from unigrf_kernels.ops.hstu_layer import norm_project_silu, torch_path
from unigrf_kernels.ops.hstu_layer.autograd import triton_norm_project_silu

SHAPES = [
    (0, 8, (4, 4, 4, 4)),
    (1, 50, (50, 50, 50, 50)),
    (1, 1, (1, 1, 1, 1)),
    (37, 25, (50, 25, 7, 7)),
    (70, 50, (25, 25, 25, 25)),
    (130, 200, (3, 65, 128, 16)),
]
RUNS = [("torch", torch.float32), ("torch", torch.bfloat16), *triton_runs()]


def operation(splits: tuple[int, ...], eps: float = 1e-6) -> Any:
    def call(x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, implementation: str) -> Any:
        return norm_project_silu(x, gamma, beta, weight, splits, eps=eps, implementation=implementation)

    return call


def tensors(num_rows: int, width: int, splits: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    gamma, beta = 1 + 0.3 * normal(width), 0.2 * normal(width)
    return [2 * normal(num_rows, width) + 0.5, gamma, beta, normal(width, sum(splits)) * width**-0.5]


@pytest.mark.parametrize(("implementation", "dtype"), RUNS)
@pytest.mark.parametrize(("num_rows", "width", "splits"), SHAPES)
def test_outputs_and_gradients(
    num_rows: int, width: int, splits: tuple[int, ...], implementation: str, dtype: torch.dtype
) -> None:
    assert_as_exact_as_eager(
        operation(splits), lambda draw: tensors(num_rows, width, splits, draw), dtype, implementation
    )


@settings(max_examples=12)
@given(
    num_rows=st.integers(0, 90),
    width=st.integers(1, 70),
    splits=st.tuples(*[st.integers(1, 70)] * 4),
    implementation=st.sampled_from(["torch", "triton"]),
)
def test_drawn_shapes(num_rows: int, width: int, splits: tuple[int, ...], implementation: str) -> None:
    assert_as_exact_as_eager(
        operation(splits, eps=1e-3),
        lambda draw: tensors(num_rows, width, splits, draw),
        torch.float32,
        implementation,
    )


@pytest.mark.parametrize("implementation", ["torch", pytest.param("triton", marks=pytest.mark.gpu)])
def test_norm_in_fp32_beside_half_precision_rows(implementation: str) -> None:
    assert_as_exact_as_eager(
        operation((8, 8, 8, 8)),
        lambda draw: tensors(33, 24, (8, 8, 8, 8), draw),
        torch.bfloat16,
        implementation,
        dtypes=(torch.bfloat16, torch.float32, torch.float32, torch.bfloat16),
    )


def test_torch_path_agrees_across_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_path, "_BLOCK_ROWS", 16)
    splits = (5, 6, 7, 8)
    for num_rows in (15, 16, 17, 50):
        assert_as_exact_as_eager(
            operation(splits), lambda draw, n=num_rows: tensors(n, 10, splits, draw), torch.float32, "torch"
        )


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize("needed", range(4))
def test_each_gradient_alone(needed: int, implementation: str) -> None:
    """A tensor that needs no gradient must not change another's."""
    splits = (5, 6, 7, 8)
    drawn = [tensor.float() for tensor in tensors(20, 10, splits, torch.Generator().manual_seed(3))]
    together = run(operation(splits), drawn, implementation, TRITON_DEVICE)
    leaves = [tensor.to(TRITON_DEVICE).requires_grad_(index == needed) for index, tensor in enumerate(drawn)]
    outputs = operation(splits)(*leaves, implementation)
    upstream = [upstream_of(output, number) for number, output in enumerate(outputs)]
    (alone,) = torch.autograd.grad(outputs, [leaves[needed]], upstream)
    assert torch.equal(alone, together[f"grad{needed}"])


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_an_unused_part_has_no_influence(implementation: str) -> None:
    splits = (5, 6, 7, 8)
    drawn = [tensor.float() for tensor in tensors(20, 10, splits, torch.Generator().manual_seed(4))]
    results = []
    for name in (implementation, "reference"):
        leaves = [tensor.to(TRITON_DEVICE).requires_grad_() for tensor in drawn]
        outputs = operation(splits)(*leaves, name)
        results.append(torch.autograd.grad(outputs[2].square().sum(), leaves))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_strided_inputs_are_read_and_left_unchanged(implementation: str) -> None:
    splits = (5, 6, 7, 8)
    x, gamma, beta, weight = (
        tensor.float() for tensor in tensors(20, 10, splits, torch.Generator().manual_seed(5))
    )
    strided = [
        torch.cat([x, x], 1)[:, :10], gamma.repeat(2)[:10], beta.repeat_interleave(2)[::2], weight.t().clone().t()
    ]  # fmt: skip
    before = [tensor.clone() for tensor in strided]
    actual = run(operation(splits), strided, implementation, TRITON_DEVICE)
    expected = run(operation(splits), [x, gamma, beta, weight], "reference")
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name].cpu(), tensor)
    assert all(torch.equal(one, other) for one, other in zip(before, strided, strict=True))


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_repeated_runs_agree_bit_for_bit(implementation: str) -> None:
    splits = (16, 16, 16, 16)
    drawn = [tensor.float() for tensor in tensors(300, 16, splits, torch.Generator().manual_seed(6))]
    first, second = (run(operation(splits), drawn, implementation, TRITON_DEVICE) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_constant_rows_give_the_bias_and_no_infinities() -> None:
    for implementation in ("torch", "triton", "reference"):
        x = torch.full((3, 6), 7.0, device=TRITON_DEVICE, requires_grad=True)
        ones, zeros, weight = (
            torch.ones(6, device=TRITON_DEVICE),
            torch.zeros(6, device=TRITON_DEVICE),
            torch.ones(6, 4, device=TRITON_DEVICE),
        )
        parts = norm_project_silu(x, ones, zeros, weight, (1, 1, 1, 1), implementation=implementation)
        (grad,) = torch.autograd.grad(sum(part.sum() for part in parts), x)
        # A chip's mean of equal numbers may differ from them in the last bit, which 1 / sqrt(eps) magnifies.
        bound = 1e-3 if x.is_cuda else 0.0
        assert all(part.abs().max() <= bound for part in parts)
        assert torch.isfinite(grad).all()


def test_triton_operator_obeys_the_rules_of_custom_operators() -> None:
    leaves = [
        tensor.float().to(TRITON_DEVICE).requires_grad_()
        for tensor in tensors(9, 6, (2, 3, 4, 5), torch.Generator().manual_seed(7))
    ]
    torch.library.opcheck(triton_norm_project_silu, (*leaves, [2, 3, 4, 5], 1e-6))


GOOD: dict[str, Any] = {
    "x": torch.zeros(3, 4),
    "norm_weight": torch.ones(4),
    "norm_bias": torch.zeros(4),
    "weight": torch.zeros(4, 10),
    "splits": (1, 2, 3, 4),
}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"x": torch.zeros(3)}, ValueError, r"x must have shape \[T, D\], got \[3\]"),
        ({"x": torch.zeros(3, 0)}, ValueError, r"x must have shape \[T, D\], got \[3, 0\]"),
        ({"x": torch.zeros(3, 4).int()}, TypeError, "x must be floating point, got int32"),
        ({"norm_weight": torch.ones(5)}, ValueError, r"norm_weight must have shape \[4\], got \[5\]"),
        ({"norm_bias": torch.ones(1, 4)}, ValueError, r"norm_bias must have shape \[4\], got \[1, 4\]"),
        ({"norm_weight": torch.ones(4).half()}, TypeError, "norm_weight must be float32, got float16"),
        (
            {"norm_bias": torch.ones(4, device="meta")},
            ValueError,
            "norm_bias must be on cpu, got meta",
        ),
        ({"splits": (5, 5)}, ValueError, r"splits must be 4 positive widths \(u, v, q, k\), got \[5, 5\]"),
        ({"splits": (0, 2, 4, 4)}, ValueError, r"splits must be 4 positive widths .*, got \[0, 2, 4, 4\]"),
        ({"weight": torch.zeros(10, 4)}, ValueError, r"weight must have shape \[4, 10\], got \[10, 4\]"),
        ({"weight": torch.zeros(4, 10).half()}, TypeError, "weight must be float32 like x, got float16"),
        ({"weight": torch.zeros(4, 10, device="meta")}, ValueError, "weight must be on cpu, got meta"),
        ({"eps": 0.0}, ValueError, "eps must be positive, got 0.0"),
        ({"implementation": "fast"}, ValueError, "norm_project_silu: implementation must be one of .*"),
    ],
)
def test_refusals(bad: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        norm_project_silu(**{**GOOD, **bad})


def test_what_the_kernels_cannot_hold_is_refused() -> None:
    wide = {
        "x": torch.zeros(1, 8193, device=TRITON_DEVICE),
        "norm_weight": torch.ones(8193, device=TRITON_DEVICE),
        "norm_bias": torch.ones(8193, device=TRITON_DEVICE),
        "weight": torch.zeros(8193, 10, device=TRITON_DEVICE),
    }
    expected = "^x must have at most 8192 columns for implementation 'triton', got 8193; use 'torch'$"
    with pytest.raises(ValueError, match=expected):
        norm_project_silu(**{**GOOD, **wide}, implementation="triton")
    doubles = {
        name: tensor.to(TRITON_DEVICE, torch.float64) if name != "splits" else tensor
        for name, tensor in GOOD.items()
    }
    with pytest.raises(TypeError, match=r"^x must be one of .* for implementation 'triton', got float64"):
        norm_project_silu(**doubles, implementation="triton")

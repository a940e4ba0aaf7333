"""``rotary`` against the float64 reference, in every implementation, what it is for, and every refusal."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.exactness import TRITON_DEVICE, assert_as_exact_as_eager, run, triton_runs
from unigrf_kernels.ops.llama_layer import rotary
from unigrf_kernels.ops.llama_layer.autograd import _rotary

RUNS = [("torch", torch.float32), ("torch", torch.bfloat16), *triton_runs()]
IMPLEMENTATIONS = ["torch", "triton", "reference"]


def positions_of(num_tokens: int) -> Tensor:
    """Sequences of 13 tokens; the last three of each share a position, as candidates do."""
    return (torch.arange(num_tokens) % 13).clamp(max=10)


def operation(positions: Tensor, base: float = 10000.0) -> Any:
    def call(q: Tensor, k: Tensor, implementation: str) -> tuple[Tensor, Tensor]:
        return rotary(q, k, positions.to(q.device), base=base, implementation=implementation)

    return call


def tensors(num_tokens: int, heads: int, key_heads: int, width: int, generator: torch.Generator) -> list[Tensor]:
    shapes = ((num_tokens, heads, width), (num_tokens, key_heads, width))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_quarter_turn_worked_by_hand(implementation: str) -> None:
    """Width 2 has one frequency, 1: position p turns by p radians."""
    q = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 2.0]]], device=TRITON_DEVICE)
    turned, _ = operation(torch.tensor([0, 1, 3]))(q, q, implementation)
    expected = [[1, 0], [math.cos(1), math.sin(1)], [-2 * math.sin(3), 2 * math.cos(3)]]
    torch.testing.assert_close(turned[:, 0].cpu(), torch.tensor(expected))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_products_depend_on_distances_alone(implementation: str) -> None:
    q, k = (tensor.float().to(TRITON_DEVICE) for tensor in tensors(6, 2, 2, 16, torch.Generator().manual_seed(1)))
    near_q, near_k = operation(torch.arange(6))(q, k, implementation)
    far_q, far_k = operation(torch.arange(6) + 700)(q, k, implementation)
    products = [torch.einsum("ihd,jhd->hij", one, other) for one, other in ((near_q, near_k), (far_q, far_k))]
    # Angles near 700 are exact to half a unit in the last place, 3e-5 radian.
    torch.testing.assert_close(*products, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("implementation", "dtype"), RUNS)
@pytest.mark.parametrize(
    ("num_tokens", "heads", "key_heads", "width"),
    [(0, 2, 1, 8), (1, 1, 1, 2), (37, 3, 1, 50), (70, 2, 2, 26), (20, 4, 2, 128)],
)
def test_outputs_and_gradients(
    num_tokens: int, heads: int, key_heads: int, width: int, implementation: str, dtype: torch.dtype
) -> None:
    assert_as_exact_as_eager(
        operation(positions_of(num_tokens)),
        lambda draw: tensors(num_tokens, heads, key_heads, width, draw),
        dtype,
        implementation,
    )


@settings(max_examples=12)
@given(
    positions=st.lists(st.integers(0, 50000), max_size=40),
    half=st.integers(1, 40),
    heads=st.integers(1, 3),
    base=st.floats(2.0, 1e6),
    implementation=st.sampled_from(["torch", "triton"]),
)
def test_drawn_shapes(positions: list[int], half: int, heads: int, base: float, implementation: str) -> None:
    assert_as_exact_as_eager(
        operation(torch.tensor(positions, dtype=torch.int64), base),
        lambda draw: tensors(len(positions), heads, 1, 2 * half, draw),
        torch.float32,
        implementation,
    )


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_slices_of_one_projection_are_read_where_they_lie(implementation: str) -> None:
    fused = torch.randn(20, 6, 10, generator=torch.Generator().manual_seed(1))
    before = fused.clone()
    q, k = fused[:, :4], fused[:, 4:5]
    call = operation(positions_of(20))
    actual = run(call, [q, k], implementation, TRITON_DEVICE)
    for name, tensor in run(call, [q.contiguous(), k.contiguous()], "reference").items():
        torch.testing.assert_close(actual[name].cpu(), tensor)
    assert torch.equal(before, fused)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_each_gradient_alone(implementation: str) -> None:
    drawn = [tensor.float() for tensor in tensors(20, 2, 1, 10, torch.Generator().manual_seed(3))]
    for needed in range(2):
        leaves = [tensor.to(TRITON_DEVICE).requires_grad_(index == needed) for index, tensor in enumerate(drawn)]
        outputs = operation(positions_of(20))(*leaves, implementation)
        (alone,) = torch.autograd.grad(outputs[needed].square().sum(), [leaves[needed]])
        # A rotation keeps lengths, so the squared length's gradient is that of no rotation.
        torch.testing.assert_close(alone, 2 * leaves[needed].detach())


def test_triton_operator_obeys_the_rules_of_custom_operators() -> None:
    q, k = (
        tensor.float().to(TRITON_DEVICE).requires_grad_()
        for tensor in tensors(9, 2, 1, 6, torch.Generator().manual_seed(8))
    )
    torch.library.opcheck(_rotary, (q, k, positions_of(9).to(TRITON_DEVICE), 10000.0, 1.0))


GOOD: dict[str, Any] = {
    "q": torch.zeros(3, 2, 4),
    "k": torch.zeros(3, 1, 4),
    "positions": torch.zeros(3, dtype=torch.int64),
}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"q": torch.zeros(3, 4)}, ValueError, r"q must have shape \[T, H, D\], got \[3, 4\]"),
        ({"q": torch.zeros(3, 2, 5)}, ValueError, "q must have an even head dimension, got 5"),
        ({"k": torch.zeros(3, 1, 6)}, ValueError, r"k must have shape \[3, Hkv, 4\], got \[3, 1, 6\]"),
        ({"q": torch.zeros(3, 2, 4).int()}, TypeError, "q must be floating point, got int32"),
        ({"k": torch.zeros(3, 1, 4).half()}, TypeError, "k must be float32 like q, got float16"),
        ({"positions": torch.zeros(2).long()}, ValueError, r"positions must have shape \[3\], got \[2\]"),
        ({"positions": torch.zeros(3)}, TypeError, "positions must be int64, got float32"),
        (
            {"positions": torch.zeros(3, dtype=torch.int64, device="meta")},
            ValueError,
            "positions must be on cpu, got meta",
        ),
        ({"base": 1.0}, ValueError, "base must be above 1, got 1.0"),
        (
            {
                "q": torch.zeros(3, 2, 4, dtype=torch.float64, device=TRITON_DEVICE),
                "k": torch.zeros(3, 1, 4, dtype=torch.float64, device=TRITON_DEVICE),
                "positions": torch.zeros(3, dtype=torch.int64, device=TRITON_DEVICE),
                "implementation": "triton",
            },
            TypeError,
            "q must be one of float32, bfloat16, float16 for implementation 'triton', got float64; use 'torch'",
        ),
    ],
)
def test_refusals(bad: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        rotary(**{**GOOD, **bad})

"""Operands stored head after head, as other attention libraries hand them over."""

from __future__ import annotations

import pytest
import torch

from unigrf_kernels.ops.jagged_attention import autograd, jagged_attention
from unigrf_kernels.ops.jagged_attention.triton_forward import forward_kernel
from unigrf_kernels.ops.jagged_attention.triton_key_gradient import key_gradient_kernel
from unigrf_kernels.ops.jagged_attention.triton_query_gradient import query_gradient_kernel
from unigrf_kernels.ops.jagged_attention.triton_schedule import Schedule, Tile

TILE = Tile(16, 16, 4, 1)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VARYING = {
    "q_head_stride",
    "k_head_stride",
    "v_head_stride",
    "num_tokens",
    "window",
    "num_positions",
    "first_item",
}


@pytest.mark.parametrize("kernel", [forward_kernel, key_gradient_kernel, query_gradient_kernel])
def test_what_differs_by_batch_is_no_constant_of_a_kernel(kernel: object) -> None:
    """A head's stride is the number of tokens times the width: as a constant it would compile for every batch."""
    annotations = kernel.fn.__annotations__  # type: ignore[attr-defined]
    assert not VARYING & {name for name, annotation in annotations.items() if "constexpr" in str(annotation)}


def test_heads_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third head lies 2^31 elements behind the first; memory that nothing touches costs nothing."""
    monkeypatch.setattr(autograd, "choose_schedule", lambda *_, **__: Schedule(TILE, TILE, TILE))
    tokens, heads, width, stride = 5, 3, 16, 2**30
    storage = torch.empty(2 * stride + tokens * width, dtype=torch.float16, device=DEVICE)
    generator = torch.Generator().manual_seed(0)
    near = [torch.randn(tokens, heads, width, generator=generator).half().to(DEVICE) for _ in range(3)]
    offsets = torch.tensor([0, 5], device=DEVICE)

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
        out = jagged_attention(*leaves, offsets, scale=0.2, scaling_length=4.0, implementation="triton")
        return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]

    expected = run(*near)
    for which in range(3):
        far = storage.as_strided((tokens, heads, width), (width, stride, 1))
        far.copy_(near[which])
        actual = run(*(far if index == which else tensor for index, tensor in enumerate(near)))
        for ours, theirs in zip(actual, expected, strict=True):
            assert torch.equal(ours, theirs)

"""``seeded_dropout``: same bits by every implementation, forward and backward, and every refusal."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.exactness import TRITON_DEVICE, triton_runs
from unigrf_kernels.ops.dropout import seeded_dropout
from unigrf_kernels.ops.dropout.autograd import triton_dropout

SHAPES = [(0,), (1,), (2,), (0, 50), (1, 25), (7, 25), (41, 50), (3, 5, 7), (4099,)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RUNS = [("torch", dtype) for dtype in DTYPES] + triton_runs()


def apply(x: torch.Tensor, implementation: str, seed: int = 9, dropout: float = 0.3) -> list[torch.Tensor]:
    device = TRITON_DEVICE if implementation == "triton" else x.device
    leaf = x.detach().to(device).requires_grad_()
    out = seeded_dropout(leaf, dropout=dropout, seed=seed, implementation=implementation)
    (grad,) = torch.autograd.grad(out, leaf, torch.cos(x).to(device))
    return [out.detach().cpu(), grad.cpu()]


@pytest.mark.parametrize(("implementation", "dtype"), RUNS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_of_the_reference(shape: tuple[int, ...], implementation: str, dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    for actual, expected in zip(apply(x, implementation), apply(x, "reference"), strict=True):
        assert actual.dtype == dtype
        assert torch.equal(actual, expected)


def test_kept_elements_are_scaled_and_others_zero() -> None:
    out = seeded_dropout(torch.ones(1 << 16), dropout=0.25, seed=4)
    assert out.unique().tolist() == [0.0, pytest.approx(4 / 3, rel=1e-4)]
    assert out.mean().item() == pytest.approx(1, abs=4 * (1 / 3) ** 0.5 / 256)


def test_strided_input_is_masked_by_its_logical_index() -> None:
    x = torch.randn(25, 14).t()
    for implementation in ("torch", "triton"):
        for actual, expected in zip(apply(x, implementation), apply(x.contiguous(), "reference"), strict=True):
            assert torch.equal(actual, expected)


@pytest.mark.parametrize("implementation", ["torch", "triton", "reference"])
def test_seed_as_a_tensor_is_the_same_seed(implementation: str) -> None:
    x = torch.randn(300).to(TRITON_DEVICE)
    by_int = seeded_dropout(x, dropout=0.5, seed=-77, implementation=implementation)
    by_tensor = seeded_dropout(x, dropout=0.5, seed=torch.tensor(-77), implementation=implementation)
    assert torch.equal(by_int, by_tensor)


def test_no_dropout_returns_the_input() -> None:
    x = torch.randn(5)
    assert seeded_dropout(x, dropout=0.0, seed=1) is x


def test_generators_are_left_alone() -> None:
    state = torch.get_rng_state()
    seeded_dropout(torch.ones(100), dropout=0.5, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_triton_operator_obeys_the_rules_of_custom_operators() -> None:
    x = torch.randn(33, device=TRITON_DEVICE, requires_grad=True)
    torch.library.opcheck(triton_dropout, (x, torch.tensor(3, device=TRITON_DEVICE), 0.2))


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (torch.ones(3, dtype=torch.int32), {}, TypeError, "x must be floating point, got int32"),
        (torch.ones(3), {"dropout": 1.0}, ValueError, "dropout must be at least 0 and below 1, got 1.0"),
        (torch.ones(3), {"dropout": -0.1}, ValueError, "dropout must be at least 0 and below 1, got -0.1"),
        (torch.ones(3), {"seed": 1.5}, TypeError, "seed must be an int or a 0-d int64 tensor, got float"),
        (torch.ones(3), {"seed": True}, TypeError, "seed must be an int or a 0-d int64 tensor, got bool"),
        (torch.ones(3), {"seed": 2**63}, ValueError, "seed must fit into 64 bits, got 9223372036854775808"),
        (torch.ones(3), {"seed": torch.zeros(1).long()}, ValueError, r"seed must have shape \[\], got \[1\]"),
        (torch.ones(3), {"seed": torch.zeros(())}, TypeError, "seed must be int64, got float32"),
        (
            torch.ones(3, dtype=torch.float64, device=TRITON_DEVICE),
            {"implementation": "triton"},
            TypeError,
            "x must be one of float32, bfloat16, float16 for implementation 'triton', got float64; use 'torch'",
        ),
    ],
)
def test_refusals(x: torch.Tensor, options: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        seeded_dropout(x, **{"dropout": 0.1, "seed": 0, **options})  # type: ignore[arg-type]


def test_triton_on_cpu_tensors_is_refused_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match=r"^seeded_dropout: implementation 'triton' needs CUDA tensors"):
        seeded_dropout(torch.ones(3), dropout=0.1, seed=0, implementation="triton")

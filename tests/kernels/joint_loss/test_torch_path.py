"""The plain PyTorch path: against the float64 oracle, against finite differences, and what it leaves undone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unigrf_kernels.ops.joint_loss import joint_loss, torch_path
from unigrf_kernels.ops.joint_loss.problem import NeedsGrad, Problem

from .cases import (
    CASES,
    DEVICE,
    DIFFERENTIABLE,
    EVERYTHING,
    Case,
    Inputs,
    assert_as_exact_as_plain_pytorch,
    drawn_cases,
    make_inputs,
    run,
    to_float64,
)


@pytest.fixture
def tiny_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, of several chunks each."""
    monkeypatch.setattr(torch_path, "_BLOCK_NUMBERS", {DEVICE_TYPE: 180})
    monkeypatch.setattr(torch_path, "_CHUNK_NUMBERS", {DEVICE_TYPE: 150})
    monkeypatch.setattr(torch_path, "_MIN_ROWS", 2)


DEVICE_TYPE = make_inputs(CASES[0])["hidden"].device.type


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case: Case, dtype: torch.dtype) -> None:
    assert_as_exact_as_plain_pytorch(make_inputs(case, dtype), "torch")


@given(case=drawn_cases(40), dtype=st.sampled_from((torch.float32, torch.bfloat16)), seed=st.integers(0, 2**31))
@settings(max_examples=60)
def test_any_shape(case: Case, dtype: torch.dtype, seed: int) -> None:
    assert_as_exact_as_plain_pytorch(make_inputs(case, dtype, seed), "torch")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_chunks_of_few_rows_change_nothing_but_the_order_of_sums(case: Case, tiny_chunks: None) -> None:
    inputs = to_float64(make_inputs(case))
    expected = run(inputs, "reference")
    for name, actual in run(inputs, "torch").items():
        torch.testing.assert_close(actual, expected[name], rtol=1e-9, atol=1e-10, equal_nan=True, msg=name)


@pytest.mark.parametrize("case", [EVERYTHING, Case("raw", normalize=False, temperature=1.5, M=2)], ids=str)
def test_gradients_are_finite_differences(case: Case) -> None:
    small = Case(**{**vars(case), "T": 6, "P": 5, "K": 7, "D": 3, "R": 4, "A": 2, "U": 2, "temperature": 0.9})
    inputs = to_float64(make_inputs(small))
    names = [name for name in DIFFERENTIABLE if name in inputs]

    def sums(*values: Tensor) -> tuple[Tensor, Tensor]:
        loss = joint_loss(**{**inputs, **dict(zip(names, values, strict=True))}, implementation="torch")
        return loss.retrieval_sum, loss.ranking_sum

    assert torch.autograd.gradcheck(sums, [inputs[name].requires_grad_() for name in names])


@pytest.mark.parametrize("needed", DIFFERENTIABLE)
def test_each_gradient_alone(needed: str, poisoned_memory: None) -> None:
    inputs = make_inputs(EVERYTHING)
    alone, together = run(inputs, "torch", (needed,)), run(inputs, "torch")
    assert [name for name in alone if name.startswith("grad ")] == ["grad " + needed]
    for name in alone.keys() - {"retrieval_sq_norm", "ranking_sq_norm"}:
        assert torch.equal(alone[name], together[name]), name
    assert bool(alone["retrieval_sq_norm"].isnan()) == (needed != "hidden")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory_nobody_wrote_is_never_read(case: Case, poisoned_memory: None) -> None:
    for name, value in run(make_inputs(case), "torch").items():
        assert not value.isnan().any(), name


@pytest.mark.skipif(DEVICE.type == "cuda", reason="PyTorch's index_add adds in any order on a GPU")
def test_repeats_are_bit_equal() -> None:
    inputs = make_inputs(Case(P=300, K=200, M=3, mask=True, num_rows=9, T=500))
    first, second = run(inputs, "torch"), run(inputs, "torch")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("log_q", [None, 30.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_extreme_logits_stay_finite(scale: float, log_q: float | None) -> None:
    inputs = make_inputs(Case(normalize=False))
    inputs |= {name: scale * inputs[name] for name in ("hidden", "positives", "negatives")}
    if log_q is not None:
        inputs["negative_log_q"] = torch.linspace(-log_q, log_q, len(inputs["negatives"]))
    results = run(inputs, "torch")
    assert all(value.isfinite().all() for value in results.values())
    assert_as_exact_as_plain_pytorch(inputs, "torch")


@pytest.mark.parametrize("temperature", [1 / 39.9, 1 / 40.1])
def test_both_sides_of_the_bound_below_which_nothing_is_shifted(temperature: float) -> None:
    assert_as_exact_as_plain_pytorch(make_inputs(Case(temperature=temperature, M=2)), "torch")


class _LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor) and value.dim():
                self.numel = max(self.numel, value.numel())
        return result


@pytest.mark.parametrize("num_ids", [1, 10_000])
def test_memory_is_rows_and_negatives_not_their_product(num_ids: int, tiny_chunks: None) -> None:
    case = Case(T=800, P=400, K=300, D=8, num_ids=num_ids, mask=True, M=2)
    with _LargestTensor() as seen:
        torch_path.compute(as_problem(make_inputs(case)), NeedsGrad(*[True] * 6))
    assert seen.numel <= case.P * case.K / 16


def as_problem(inputs: Inputs) -> Problem:
    return Problem(**(dict.fromkeys(Problem._fields) | inputs))


def test_without_gradients_only_the_first_product_is_made() -> None:
    inputs = make_inputs(Case(P=64, K=64, D=8))

    class CountProducts(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            CountProducts.count += func._schema.name.split("::")[1] in ("mm", "addmm", "addmm_")
            return func(*args, **(kwargs or {}))

    with CountProducts():
        torch_path.compute(as_problem(inputs), NeedsGrad(*[False] * 6))
    assert CountProducts.count == 2  # logits of retrieval and of ranking

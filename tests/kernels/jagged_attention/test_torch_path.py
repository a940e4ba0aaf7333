"""The efficient PyTorch path against the float64 oracle, and what it must never do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import unigrf_kernels
from unigrf_kernels.ops.jagged_attention import (
    jagged_attention,
    plan_attention,
    torch_activations,
    torch_bias,
    torch_blocks,
    torch_path,
    torch_schedule,
)

from .cases import CASES, Case, Inputs, assert_as_exact_as_eager, make_inputs, run

BY_NAME = {case.name: case for case in CASES}
FULL = BY_NAME["candidates-biases"]
TYPICAL = [
    BY_NAME[name]
    for name in (
        "both-biases",
        "pairs",
        "shifted",
        "candidates-pairs",
        "window-pairs",
        "softmax-biases",
        "softmax-candidates",
        "silu-grouped",
    )
]


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many groups of few sequences, cut into many blocks."""
    monkeypatch.setattr(torch_schedule, "QUERY_TOKENS_PER_BLOCK", 6)
    monkeypatch.setattr(torch_schedule, "SCORES_PER_BLOCK", 400)


def assert_equals_reference_in_float64(inputs: Inputs) -> None:
    """Both paths round differently in the last places; any wrong term is far above 1e-10."""
    inputs = inputs.to(torch.float64)
    expected = run(inputs, "reference")
    for name, actual in run(inputs, "torch").items():
        torch.testing.assert_close(
            actual, expected[name], rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_gradients(case: Case, dtype: torch.dtype) -> None:
    inputs = make_inputs(case, dtype)
    assert_as_exact_as_eager(inputs, run(inputs, "torch"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference_in_float64(case: Case) -> None:
    assert_equals_reference_in_float64(make_inputs(case))


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_many_small_blocks(case: Case) -> None:
    assert_equals_reference_in_float64(make_inputs(case))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any contract-abiding shape: empty sequences, single tokens, nothing but candidates, a window of one."""
    lengths = draw(st.lists(st.integers(0, 40), max_size=6))
    activation = draw(st.sampled_from(["silu", "softmax"]))
    key_heads = draw(st.integers(1, 2))
    candidates = None
    if draw(st.booleans()):
        candidates = tuple(draw(st.integers(0, length)) for length in lengths)
    return Case(
        "drawn",
        tuple(lengths),
        num_heads=key_heads * draw(st.integers(1, 3)),
        num_key_heads=key_heads,
        head_dim=draw(st.integers(1, 9)),
        activation=activation,
        candidates=candidates,
        window=draw(st.one_of(st.none(), st.integers(1, 50))),
        num_positions=draw(st.integers(0, 50)),
        num_buckets=draw(st.integers(0, 100)),
        times=draw(st.sampled_from(["distinct", "pairs", "shifted"])),
    )


@settings(max_examples=120, deadline=None)
@given(cases(), st.integers(0, 2**31), st.sampled_from([3, 8, 96]), st.sampled_from([1, 300, 200_000]))
def test_any_shape(case: Case, seed: int, queries_per_block: int, scores_per_block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_schedule, "QUERY_TOKENS_PER_BLOCK", queries_per_block)
        patch.setattr(torch_schedule, "SCORES_PER_BLOCK", scores_per_block)
        assert_equals_reference_in_float64(make_inputs(case, seed=seed))


@pytest.mark.parametrize("case", TYPICAL, ids=str)
def test_each_gradient_alone(case: Case) -> None:
    """Asked for alone, a gradient is bit for bit what it is among others, and no other input gets one."""
    inputs = make_inputs(case)
    together = run(inputs, "torch")
    for name in inputs.differentiable:
        leaf = inputs.differentiable[name].clone().requires_grad_()
        call = inputs.with_tensors({name: leaf})
        out = jagged_attention(call.q, call.k, call.v, call.offsets, **call.options, implementation="torch")
        out.backward(call.grad_output)
        assert torch.equal(leaf.grad, together[name]), name
        assert all(tensor.grad is None for other, tensor in call.differentiable.items() if other != name)


@pytest.mark.parametrize("case", TYPICAL, ids=str)
def test_gradcheck(case: Case) -> None:
    """Derivatives against finite differences, so that a mistake shared with the reference would show."""
    small = replace(
        case,
        lengths=(0, 5, 2, 1),
        candidates=None if case.candidates is None else (0, 2, 2, 0),
        head_dim=2,
        num_positions=min(case.num_positions, 5),
        num_buckets=min(case.num_buckets, 12),
    )
    inputs = make_inputs(small, torch.float64)
    names = list(inputs.differentiable)

    def call(*tensors: Tensor) -> Tensor:
        replaced = inputs.with_tensors(dict(zip(names, tensors, strict=True)))
        return jagged_attention(
            replaced.q, replaced.k, replaced.v, replaced.offsets, **replaced.options, implementation="torch"
        )

    leaves = [tensor.requires_grad_() for tensor in inputs.differentiable.values()]
    assert torch.autograd.gradcheck(call, leaves)


@pytest.mark.parametrize("case", TYPICAL, ids=str)
def test_repeated_runs_are_bit_equal_and_leave_inputs_unchanged(case: Case) -> None:
    inputs = make_inputs(case)
    before = {name: tensor.clone() for name, tensor in inputs.differentiable.items()}
    first, second = run(inputs, "torch"), run(inputs, "torch")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in inputs.differentiable.items())


@pytest.mark.parametrize("case", TYPICAL, ids=str)
def test_strided_inputs(case: Case) -> None:
    """Slices of one wide projection, as models cut them, tables that are transposed, an expanded gradient."""
    inputs = make_inputs(case)

    def strided(tensor: Tensor) -> Tensor:
        if tensor.dim() == 2:
            return tensor.T.contiguous().T
        wide = tensor.new_full((*tensor.shape[:2], tensor.shape[2] + 7), torch.nan)
        wide[..., 3:-4] = tensor
        return wide[..., 3:-4]

    awkward = inputs.with_tensors({name: strided(tensor) for name, tensor in inputs.differentiable.items()})
    ones = torch.ones((), dtype=torch.float32)
    expected = run(replace(inputs, grad_output=ones.repeat(inputs.q.shape)), "torch")
    actual = run(replace(awkward, grad_output=ones.expand(inputs.q.shape)), "torch")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("case", TYPICAL, ids=str)
def test_nothing_leaks_from_one_sequence_to_another(case: Case) -> None:
    """With NaN in one sequence, outputs and gradients of all others are as before, bit for bit."""
    inputs = make_inputs(case)
    clean = run(inputs, "torch")
    number = max(range(len(case.lengths)), key=lambda i: case.lengths[i])
    poisoned = torch.zeros(case.num_tokens, dtype=torch.bool)
    poisoned[inputs.offsets[number] : inputs.offsets[number + 1]] = True
    tensors = {
        name: inputs.differentiable[name].masked_fill(poisoned[:, None, None], torch.nan)
        for name in ("q", "k", "v")
    }
    dirty = run(inputs.with_tensors(tensors), "torch")
    for name in ("out", "q", "k", "v"):
        assert torch.equal(dirty[name][~poisoned], clean[name][~poisoned]), name


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("case", TYPICAL, ids=str)
def test_uninitialised_memory_never_reaches_a_result(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*size: Any, **options: Any) -> Tensor:
        return torch.full(size[0] if isinstance(size[0], tuple | torch.Size) else size, torch.nan, **options)

    expected = run(make_inputs(case), "torch")
    monkeypatch.setattr(torch_path.torch, "empty", empty)
    actual = run(make_inputs(case), "torch")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_later_tokens_and_other_candidates_change_nothing() -> None:
    """History tokens do not see candidates, a candidate does not see another one."""
    case = Case("candidates", (30,), candidates=(6,), num_positions=9, num_buckets=9)
    inputs = make_inputs(case)
    expected = run(inputs, "torch")["out"]
    k, v = inputs.k.clone(), inputs.v.clone()
    k[27], v[27] = 5.0, -5.0
    actual = run(inputs.with_tensors({"k": k, "v": v}), "torch")["out"]
    changed = (actual != expected).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [27]


@pytest.mark.parametrize("name", ["candidates-biases", "candidates-pairs", "softmax-candidates"])
@pytest.mark.parametrize("share", ["none", "one sequence's"])
def test_candidates_that_nobody_learns_from(name: str, share: str) -> None:
    """Backward leaves out blocks of candidates without output gradients, and nothing else."""
    inputs = make_inputs(BY_NAME[name])
    gradient, bounds = inputs.grad_output.clone(), inputs.offsets.tolist()
    candidates = inputs.options["num_candidates"].tolist()
    for stop, count in list(zip(bounds[1:], candidates, strict=True))[share != "none" and 2 :]:
        gradient[stop - count : stop] = 0
    inputs = replace(inputs, grad_output=gradient)
    assert_as_exact_as_eager(inputs, run(inputs, "torch"))


def test_output_does_not_depend_on_the_rest_of_the_batch() -> None:
    """A sequence alone and the same one among longer ones: equal but for the last bits."""
    case = Case("batch", (50, 9, 120), num_positions=64, num_buckets=40, times="pairs")
    inputs = make_inputs(case, torch.float64)
    together = run(inputs, "torch")["out"][50:59]
    tokens = slice(50, 59)
    options = {**inputs.options}
    options["query_times"], options["key_times"] = options["query_times"][tokens], options["key_times"][tokens]
    alone = jagged_attention(
        inputs.q[tokens],
        inputs.k[tokens],
        inputs.v[tokens],
        torch.tensor([0, 9]),
        **options,
        implementation="torch",
    )
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)


def test_tables_in_another_dtype_than_the_queries() -> None:
    """Half-precision operands with fp32 tables, as under mixed precision: each gradient in its input's dtype."""
    inputs = make_inputs(BY_NAME["both-biases"], torch.bfloat16)
    tables = {name: inputs.options[name].float() for name in ("position_bias", "time_bias")}
    actual = run(inputs.with_tensors(tables), "torch")
    assert {name: tensor.dtype for name, tensor in actual.items()} == {
        "out": torch.bfloat16,
        "q": torch.bfloat16,
        "k": torch.bfloat16,
        "v": torch.bfloat16,
        "position_bias": torch.float32,
        "time_bias": torch.float32,
    }
    assert_as_exact_as_eager(inputs.with_tensors(tables), actual)


def test_a_second_derivative_is_refused() -> None:
    inputs = make_inputs(BY_NAME["plain"])
    q = inputs.q.requires_grad_()
    out = jagged_attention(q, inputs.k, inputs.v, inputs.offsets, **inputs.options, implementation="torch")
    (gradient,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_import_loads_neither_triton_nor_the_compiler() -> None:
    """Both would double the time to start, and Triton need not be installed."""
    code = """
import sys, torch
from unigrf_kernels.ops.jagged_attention import jagged_attention
q = torch.zeros(2, 1, 4)
jagged_attention(q, q, q, torch.tensor([0, 2]), scale=1.0, scaling_length=1.0)
print([name for name in ("triton", "torch._dynamo") if name in sys.modules])
"""
    path = Path(unigrf_kernels.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=path, check=False, timeout=300
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_works_inside_a_compiled_function() -> None:
    inputs = make_inputs(BY_NAME["pairs"])

    @torch.compile(backend="eager")
    def layer(q: Tensor) -> Tensor:
        doubled = q * 2
        return jagged_attention(
            doubled, inputs.k, inputs.v, inputs.offsets, **inputs.options, implementation="torch"
        )

    expected = run(inputs.with_tensors({"q": inputs.q * 2}), "torch")["out"]
    assert torch.equal(layer(inputs.q), expected)


@pytest.mark.parametrize("case", TYPICAL, ids=str)
def test_layers_that_share_a_plan_get_what_they_get_without(case: Case) -> None:
    inputs = make_inputs(case)
    structure_names = ("num_candidates", "window", "query_times", "key_times")
    structure = {name: inputs.options[name] for name in structure_names if name in inputs.options}
    options = {name: value for name, value in inputs.options.items() if name not in structure_names}
    plan = plan_attention(inputs.offsets, **structure)
    expected = run(inputs, "torch")
    for _ in range(2):
        actual = run(replace(inputs, options=options), "torch", plan=plan)
        assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_two_tables_of_different_size_share_a_plan() -> None:
    inputs = make_inputs(BY_NAME["pairs"])
    plan = plan_attention(
        inputs.offsets, query_times=inputs.options["query_times"], key_times=inputs.options["key_times"]
    )
    for num_buckets in (40, 7, 40):
        table = inputs.options["time_bias"][:, :num_buckets].contiguous()
        call = inputs.with_tensors({"time_bias": table})
        assert_as_exact_as_eager(call, run(call, "torch", plan=plan))


def test_buckets_beyond_the_limit_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(BY_NAME["tile-edges"])
    expected = run(inputs, "torch")
    monkeypatch.setattr(torch_bias.BlockBuckets, "MAX_CACHED", 5000)
    actual = run(inputs, "torch")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def patch_silu_derivative(patch: pytest.MonkeyPatch) -> None:
    wrong = lambda self, gradient, scores, rows: gradient.mul_(torch.sigmoid(scores))  # noqa: E731 a one-line mutant
    patch.setattr(torch_activations.Silu, "differentiate_", wrong)


def patch_softmax_derivative(patch: pytest.MonkeyPatch) -> None:
    wrong = lambda self, gradient, scores, rows: gradient.mul_(scores)  # noqa: E731 a one-line mutant
    patch.setattr(torch_activations.Softmax, "differentiate_", wrong)


def patch_time_lanes(patch: pytest.MonkeyPatch) -> None:
    right = torch_bias.TimeBias.table_gradient
    patch.setattr(torch_bias.TimeBias, "table_gradient", lambda self: right(self) * 0.999)


def patch_diagonals(patch: pytest.MonkeyPatch) -> None:
    right = torch_bias.DiagonalBias._span
    patch.setattr(
        torch_bias.DiagonalBias,
        "_span",
        lambda self, block: slice(right(self, block).start + 1, right(self, block).stop + 1),
    )


MUTANTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "no-mask": ("plain", lambda patch: patch.setattr(torch_bias, "MASKED", 0.0)),
    "mask-too-weak": ("softmax", lambda patch: patch.setattr(torch_bias, "MASKED", -3.0)),
    "silu-derivative": ("plain", patch_silu_derivative),
    "softmax-derivative": ("softmax", patch_softmax_derivative),
    "time-gradient-short": ("pairs", patch_time_lanes),
    "diagonal-off-by-one": ("pairs", patch_diagonals),
    "shift-ignored": (
        "shifted",
        lambda patch: patch.setattr(torch_schedule, "_find_cells", lambda *_: torch_blocks.Cells(2, 0)),
    ),
    "pairs-assumed": (
        "both-biases",
        lambda patch: patch.setattr(torch_schedule, "_find_cells", lambda *_: torch_blocks.Cells(2, 0)),
    ),
    "bucket-width": (
        "pairs",
        lambda patch: patch.setattr(
            torch_bias, "time_buckets", lambda d, n: (d.abs().clamp(min=1).log() / 0.3).int().clamp(max=n - 1)
        ),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison that all tests rest on fails for each of these mistakes."""
    name, patch = MUTANTS[mutant]
    inputs = make_inputs(BY_NAME[name])
    exact = run(inputs, "torch")
    assert_as_exact_as_eager(inputs, exact)
    patch(monkeypatch)
    wrong = run(inputs, "torch")
    with pytest.raises(AssertionError):
        assert_as_exact_as_eager(inputs, wrong)

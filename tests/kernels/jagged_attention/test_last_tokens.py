"""The inference mode: the last tokens of each sequence get what they get in the pass over the whole sequence."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unigrf_kernels import jagged_attention, plan_attention
from unigrf_kernels.ops.jagged_attention import autograd, torch_last_tokens
from unigrf_kernels.ops.jagged_attention.triton_schedule import Schedule, Tile

from .cases import CASES, Case, Inputs, make_inputs

SMALL = Schedule(forward=Tile(32, 16, 4, 2), key_gradient=Tile(16, 32, 4, 2), query_gradient=Tile(32, 16, 4, 2))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHORT = [case for case in CASES if case.num_tokens < 200]
INTERPRETED = ["both-biases", "candidates-biases", "window-candidates", "softmax-candidates", "softmax-grouped"]


def whole_pass(inputs: Inputs) -> Tensor:
    """``[T, H, D]`` float64 output of every token."""
    exact = inputs.to(torch.float64)
    return jagged_attention(exact.q, exact.k, exact.v, exact.offsets, **exact.options, implementation="reference")


def last_tokens(inputs: Inputs, counts: Tensor, implementation: str) -> tuple[Tensor, Tensor]:
    """Rows of the last ``counts`` ``[B]`` tokens of each sequence, one by one, and their output by this mode."""
    bounds = inputs.offsets.tolist()
    rows = [
        row for stop, count in zip(bounds[1:], counts.tolist(), strict=True) for row in range(stop - count, stop)
    ]
    index = torch.tensor(rows, dtype=torch.int64)
    options = dict(inputs.options)
    if "query_times" in options:
        options["query_times"] = options["query_times"][index]
    query_offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    call = replace(inputs, q=inputs.q[index], options={**options, "query_offsets": query_offsets}).to(DEVICE)
    out = jagged_attention(call.q, call.k, call.v, call.offsets, **call.options, implementation=implementation)
    return index, out.cpu()


def assert_same(inputs: Inputs, counts: Tensor, implementation: str, tolerance: float) -> None:
    index, out = last_tokens(inputs, counts, implementation)
    truth = whole_pass(inputs)[index]
    assert out.shape == truth.shape
    assert out.dtype == inputs.q.dtype
    torch.testing.assert_close(out.double(), truth, rtol=tolerance, atol=tolerance)


def some_counts(case: Case, seed: int = 0) -> Tensor:
    """``[B]`` for each sequence none, all or some of its tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(case.lengths, dtype=torch.int64)
    share = torch.rand(len(case.lengths), generator=generator) * 1.4 - 0.2
    return (share.clamp(0, 1) * lengths).ceil().to(torch.int64)


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_reference_and_torch(case: Case) -> None:
    counts = some_counts(case)
    assert_same(make_inputs(case, torch.float64), counts, "reference", 1e-12)
    assert_same(make_inputs(case, torch.float64), counts, "torch", 1e-12)
    assert_same(make_inputs(case), counts, "torch", 2e-6)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("name", ["candidates-biases", "window-candidates", "window", "softmax-biases"])
def test_torch_in_small_blocks(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_last_tokens, "MIN_QUERIES_PER_BLOCK", rows)
    monkeypatch.setattr(torch_last_tokens, "SCORES_PER_BLOCK", 1)
    case = next(case for case in CASES if case.name == name)
    assert_same(make_inputs(case, torch.float64), torch.tensor(case.lengths), "torch", 1e-12)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_candidates_of_one_request_share_their_time(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autograd, "choose_schedule", lambda *_, **__: SMALL)
    case = Case("request", (40, 9), candidates=(20, 9), num_positions=60, num_buckets=30)
    inputs = make_inputs(case)
    inputs.options["query_times"][20:40] = 1_000_000_000
    assert_same(inputs, torch.tensor([20, 9]), implementation, 2e-6)


@pytest.mark.parametrize("name", INTERPRETED)
def test_triton(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autograd, "choose_schedule", lambda *_, **__: SMALL)
    case = next(case for case in CASES if case.name == name)
    assert_same(make_inputs(case), some_counts(case), "triton", 2e-6)


@settings(max_examples=4)
@given(st.data())
def test_drawn_shapes(data: st.DataObject) -> None:
    lengths = tuple(data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=3)))
    case = Case(
        "drawn",
        lengths,
        num_heads=2,
        num_key_heads=data.draw(st.sampled_from([1, 2])),
        activation=data.draw(st.sampled_from(["silu", "softmax"])),
        candidates=tuple(data.draw(st.integers(0, length)) for length in lengths),
        window=data.draw(st.one_of(st.none(), st.integers(1, 50))),
        num_positions=data.draw(st.sampled_from([0, 2, 60])),
        num_buckets=data.draw(st.sampled_from([0, 9])),
    )
    counts = torch.tensor([data.draw(st.integers(0, length)) for length in lengths])
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(autograd, "choose_schedule", lambda *_, **__: SMALL)
        for implementation in ("torch", "triton"):
            assert_same(make_inputs(case), counts, implementation, 2e-6)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_half_precision_rounds_once(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autograd, "choose_schedule", lambda *_, **__: SMALL)
    case = next(case for case in CASES if case.name == "candidates-biases")
    assert_same(make_inputs(case, torch.float16), some_counts(case), implementation, 2e-3)


def test_plan_of_last_tokens_is_shared() -> None:
    offsets, query_offsets = torch.tensor([0, 3, 5]), torch.tensor([0, 1, 2])
    plan = plan_attention(offsets, query_offsets=query_offsets)
    q, k = torch.ones(2, 1, 4), torch.ones(5, 1, 4)
    once = jagged_attention(q, k, k, offsets, plan=plan, scale=1.0, scaling_length=2.0)
    again = jagged_attention(q, k, k, offsets, query_offsets=query_offsets, scale=1.0, scaling_length=2.0)
    assert torch.equal(once, again)
    with pytest.raises(ValueError, match="query_offsets must be the tensor that plan was made for"):
        jagged_attention(q, k, k, offsets, plan=plan, query_offsets=query_offsets.clone(), scale=1.0)


@pytest.mark.parametrize("implementation", ["reference", "torch", "triton"])
def test_gradients_are_refused(implementation: str) -> None:
    offsets, query_offsets = torch.tensor([0, 3]), torch.tensor([0, 1])
    options = {"query_offsets": query_offsets, "scale": 1.0, "scaling_length": 2.0}
    q, k = torch.ones(1, 1, 16), torch.ones(3, 1, 16, requires_grad=True)
    if DEVICE == "cpu":
        with pytest.raises(ValueError, match=r"no backward with query_offsets; call it under torch\.no_grad"):
            jagged_attention(q, k, k, offsets, **options, implementation=implementation)
        with torch.no_grad():
            jagged_attention(q, k, k, offsets, **options, implementation=implementation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_offsets": torch.tensor([0, 1])}, "query_offsets must have shape [3], got [2]"),
        ({"query_offsets": torch.tensor([1, 1, 2])}, "query_offsets must start at 0, got 1"),
        (
            {"query_offsets": torch.tensor([0, 4, 5]), "q": torch.zeros(5, 1, 8)},
            "query_offsets must give each sequence between 0 and its length of queries",
        ),
        ({"query_offsets": torch.tensor([0, 1, 3])}, "query_offsets must end at 2, the number of queries, got 3"),
        (
            {"k": torch.zeros(4, 1, 8), "v": torch.zeros(4, 1, 8)},
            "offsets must end at 4, the number of tokens, got 5",
        ),
        (
            {"query_times": torch.arange(5), "key_times": torch.arange(5)},
            "query_times must have shape [2], got [5]",
        ),
        ({"query_times": torch.arange(2), "key_times": torch.arange(2)}, "key_times must have shape [5], got [2]"),
        ({"q": torch.zeros(2, 8)}, "q must have shape [Tq, H, D], got [2, 8]"),
        ({"k": torch.zeros(5, 1, 9)}, "k must have shape [T, Hkv, 8], got [5, 1, 9]"),
    ],
)
def test_messages(changes: dict[str, Tensor], message: str) -> None:
    valid = {
        "q": torch.zeros(2, 1, 8),
        "k": torch.zeros(5, 1, 8),
        "v": torch.zeros(5, 1, 8),
        "offsets": torch.tensor([0, 3, 5]),
        "query_offsets": torch.tensor([0, 1, 2]),
    }
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        jagged_attention(**{**valid, **changes}, scale=1.0, scaling_length=2.0)

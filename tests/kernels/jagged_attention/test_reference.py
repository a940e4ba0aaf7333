"""The reference against values worked by hand and against a scalar loop that shares no line with it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from unigrf_kernels.ops.jagged_attention import jagged_attention

from .cases import CASES, Case, Inputs, make_inputs, run


def scalar_attention(inputs: Inputs, scaling_length: float | None) -> list[list[list[float]]]:
    """Out ``[T][H][D]`` by loops over single numbers, from the words of the contract."""
    options = inputs.options
    num_heads, num_key_heads = inputs.q.shape[1], inputs.k.shape[1]
    q, k, v = inputs.q.tolist(), inputs.k.tolist(), inputs.v.tolist()
    lists = {name: value.tolist() for name, value in options.items() if isinstance(value, torch.Tensor)}
    position_bias, time_bias = lists.get("position_bias"), lists.get("time_bias")
    asked, happened = lists.get("query_times"), lists.get("key_times")
    bounds = inputs.offsets.tolist()
    out: list[list[list[float]]] = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        candidates = int(options["num_candidates"][number]) if "num_candidates" in options else 0
        history = stop - start - candidates
        for i in range(stop - start):
            row = []
            for head in range(num_heads):
                key_head = head * num_key_heads // num_heads
                seen, scores = [], []
                for j in range(stop - start):
                    distance = min(i, history) - min(j, history)
                    sees = j <= i if i < history else (j < history or j == i)
                    if options.get("window") is not None and distance >= options["window"]:
                        sees = False
                    if not sees:
                        continue
                    products = zip(q[start + i][head], k[start + j][key_head], strict=True)
                    score = options["scale"] * sum(a * b for a, b in products)
                    if position_bias is not None:
                        score += position_bias[head][min(distance, len(position_bias[head]) - 1)]
                    if time_bias is not None:
                        apart = max(1, abs(asked[start + i] - happened[start + j]))
                        bucket = math.floor(math.log(apart) / 0.301)
                        score += time_bias[head][min(bucket, len(time_bias[head]) - 1)]
                    seen.append(start + j)
                    scores.append(score)
                if scaling_length is not None:
                    weights = [s / (1 + math.exp(-s)) / scaling_length for s in scores]
                else:
                    total = sum(math.exp(s) for s in scores)
                    weights = [math.exp(s) / total for s in scores]
                dims = range(inputs.v.shape[2])
                row.append([sum(w * v[j][key_head][d] for w, j in zip(weights, seen, strict=True)) for d in dims])
            out.append(row)
    return out


@pytest.mark.parametrize("case", [case for case in CASES if case.num_tokens < 200], ids=str)
def test_reference_equals_the_scalar_loop(case: Case) -> None:
    inputs = make_inputs(case, torch.float64)
    expected = scalar_attention(inputs, inputs.options.get("scaling_length"))
    actual = run(inputs, "reference")["out"]
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64).reshape(actual.shape))


def test_silu_of_two_tokens_by_hand() -> None:
    """Token 1: silu(1) and silu(2) over a scaling length of 4, times the values 10 and 100."""
    q = torch.tensor([[[1.0]], [[1.0]]], dtype=torch.float64)
    k = torch.tensor([[[1.0]], [[2.0]]], dtype=torch.float64)
    v = torch.tensor([[[10.0]], [[100.0]]], dtype=torch.float64)
    out = jagged_attention(
        q, k, v, torch.tensor([0, 2]), scale=1.0, scaling_length=4.0, implementation="reference"
    )
    silu_1, silu_2 = 0.7310585786300049, 1.7615941559557649
    assert out[0, 0, 0].item() == pytest.approx(silu_1 * 10 / 4)
    assert out[1, 0, 0].item() == pytest.approx(silu_1 * 10 / 4 + silu_2 * 100 / 4)


def test_softmax_of_equal_scores_is_the_mean_of_what_is_seen() -> None:
    """Two history tokens and two candidates: a candidate averages the history and itself, three values."""
    v = torch.tensor([3.0, 6.0, 9.0, 90.0], dtype=torch.float64).view(4, 1, 1)
    out = jagged_attention(
        torch.zeros_like(v),
        v,
        v,
        torch.tensor([0, 4]),
        activation="softmax",
        scale=1.0,
        num_candidates=torch.tensor([2]),
        implementation="reference",
    )
    assert out.flatten().tolist() == pytest.approx([3.0, 4.5, 6.0, 33.0])

"""What the benchmark counts and compares with."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch

from unigrf_kernels.bench.cases.jagged_attention_inputs import (
    BenchCase,
    cpu_cases,
    gpu_cases,
    movielens_lengths,
    padded_eager,
    zipf_lengths,
)
from unigrf_kernels.ops.jagged_attention import jagged_attention


def test_operations_by_hand() -> None:
    """10 and 20 tokens, 3 heads of 8: 2 * 3 * 8 * (100 + 400) = 24,000 forward, 2.5 times that backward."""
    case = BenchCase("by hand", (10, 20), num_heads=3, head_dim=8)
    assert case.forward_flops == 24_000
    assert case.backward_flops == 60_000


def test_bytes_by_hand() -> None:
    """30 tokens of 8 values in 2 bytes; q and the output have 4 heads, k and v 2: 30 * 8 * 2 * 12."""
    case = BenchCase("by hand", (10, 20), num_heads=4, head_dim=8, num_key_heads=2)
    assert case.smallest_bytes(torch.bfloat16) == 5760


def test_lengths_are_those_of_movielens() -> None:
    """ML-1M with histories of at most 200 events: median 96, mean near 105, an even number of tokens."""
    lengths = movielens_lengths(128)
    assert statistics.median(lengths) / 2 == pytest.approx(96, abs=2)
    assert statistics.mean(lengths) / 2 == pytest.approx(106, abs=4)
    assert max(lengths) == 400
    assert all(length % 2 == 0 for length in lengths)


def test_zipf_lengths_by_hand() -> None:
    """1000 / sqrt(1), / sqrt(2), / sqrt(3), / sqrt(4), in some order."""
    assert sorted(zipf_lengths(4, 1000)) == [500, 577, 707, 1000]


def test_names_are_unique() -> None:
    names = [case.name for case in cpu_cases() + gpu_cases()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", cpu_cases(), ids=lambda case: case.name)
def test_the_baseline_computes_the_same(case: BenchCase) -> None:
    inputs = replace(case, lengths=(12, 7, 30)).inputs(torch.float64)
    actual = padded_eager(inputs)
    expected = jagged_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        inputs.plan.offsets,
        plan=inputs.plan,
        implementation="reference",
        **inputs.options,
    )
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    expected_grads = torch.autograd.grad(expected, inputs.leaves, inputs.grad_out)
    actual_grads = torch.autograd.grad(actual, inputs.leaves, inputs.grad_out)
    torch.testing.assert_close(actual_grads, expected_grads, rtol=1e-10, atol=1e-10)

"""Time buckets: HSTU's logarithm, pinned as integers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.exactness import TRITON_DEVICE
from unigrf_kernels.ops.jagged_attention import jagged_attention
from unigrf_kernels.ops.jagged_attention.buckets import bucket_thresholds, time_buckets


def test_first_buckets_by_hand() -> None:
    """Powers of e^0.301: 1.351, 1.826, 2.467, 3.333, 4.504, 6.086."""
    assert bucket_thresholds(7) == (2, 2, 3, 4, 5, 7)
    assert time_buckets(torch.arange(8), 100).tolist() == [0, 0, 2, 3, 4, 5, 5, 6]


def test_a_day_and_a_year() -> None:
    """ln(86400) = 11.367, / 0.301 = 37.76; ln(31536000) = 17.267, / 0.301 = 57.36."""
    assert time_buckets(torch.tensor([86_400, 31_536_000]), 128).tolist() == [37, 57]


@given(st.integers(0, 10**12), st.integers(1, 140))
def test_equals_the_logarithm(difference: int, num_buckets: int) -> None:
    expected = min(math.floor(math.log(max(1, difference)) / 0.301), num_buckets - 1)
    assert time_buckets(torch.tensor([difference, -difference]), num_buckets).tolist() == [expected] * 2


@pytest.mark.parametrize("bucket", [1, 2, 3, 17, 40, 77, 110])
def test_a_threshold_is_the_first_of_its_bucket(bucket: int) -> None:
    first = bucket_thresholds(128)[bucket - 1]
    assert math.floor(math.log(first) / 0.301) >= bucket
    assert math.floor(math.log(first - 1) / 0.301) < bucket


def test_buckets_above_the_largest_difference_have_no_threshold() -> None:
    """ln(2^63) / 0.301 = 145.08: bucket 145 exists, 146 does not."""
    assert len(bucket_thresholds(1000)) == 145
    assert time_buckets(torch.tensor([2**63 - 1]), 1000).tolist() == [145]


def test_one_bucket_takes_everything() -> None:
    assert bucket_thresholds(1) == ()
    assert time_buckets(torch.tensor([0, 5, 10**9]), 1).tolist() == [0, 0, 0]


def test_no_buckets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^num_buckets must be at least 1, got 0$"):
        bucket_thresholds(0)


def test_shape_and_dtype() -> None:
    buckets = time_buckets(torch.zeros(2, 0, 3, dtype=torch.int64), 4)
    assert buckets.shape == (2, 0, 3)
    assert buckets.dtype == torch.int32


LIMITS = [-(2**63), -(2**63) + 1, -1, 0, 5, 2**62, 2**63 - 1]


@pytest.mark.parametrize("implementation", ["reference", "torch", "triton"])
@pytest.mark.parametrize("num_buckets", [64, 145])
def test_times_at_the_limits_of_int64(implementation: str, num_buckets: int) -> None:
    """Tokens ask at one limit and happened at another; buckets from Python's integers, which never overflow."""
    device = TRITON_DEVICE if implementation == "triton" else torch.device("cpu")
    times = torch.tensor(LIMITS, device=device)
    asked, happened = times, times.flip(0)
    bound = 2**62 - 1

    def bucket(query: int, key: int) -> int:
        distance = abs(max(-bound, min(bound, query)) - max(-bound, min(bound, key)))
        return min(math.floor(math.log(max(1, distance)) / 0.301), num_buckets - 1)

    count = len(LIMITS)
    # Scores are the time bias alone, values one-hot: the output shows each weight.
    zeros = torch.zeros(count, 1, 16, device=device)
    values = torch.eye(count, 16, device=device)[:, None]
    table = torch.linspace(-2, 2, num_buckets, device=device)[None]
    out = jagged_attention(
        zeros,
        zeros,
        values,
        torch.tensor([0, count], device=device),
        scale=1.0,
        scaling_length=1.0,
        time_bias=table,
        query_times=asked,
        key_times=happened,
        implementation=implementation,
    )
    for query in range(count):
        for key in range(query + 1):
            score = table[0, bucket(int(asked[query]), int(happened[key]))]
            torch.testing.assert_close(out[query, 0, key], torch.nn.functional.silu(score))

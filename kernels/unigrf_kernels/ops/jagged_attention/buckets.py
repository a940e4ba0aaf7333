"""Buckets of time differences, defined through integers so that every implementation agrees bit for bit.

HSTU's rule is ``bucket(dt) = min(floor(log(max(1, |dt|)) / 0.301), num_buckets - 1)``. A logarithm rounds
differently on each device, so the rule is stated once in float64 as integer thresholds: ``|dt|`` lies in the
bucket whose number is the count of thresholds that are not above it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

BUCKET_WIDTH = 0.301
"""Width of a bucket in natural logarithm: a factor of 1.35 in time."""

LARGEST_TIME = 2**62 - 1
"""Times count as at most so far from zero, in seconds: then no difference of two leaves int64."""

_LARGEST_DIFFERENCE = 2**63 - 1

_BUCKETS_WITH_SAFE_LOGARITHM = 90
"""Up to here ``log(t) / 0.301`` stays at least 36 units in the last place of float64 away from an integer, at
every threshold ``t`` and at ``t - 1``: any logarithm that is nearly exact gives the same buckets. It is six times
faster than a search among the thresholds (6 against 34 ns an element, one core of a Xeon with AVX-512)."""


@lru_cache(maxsize=16)
def bucket_thresholds(num_buckets: int) -> tuple[int, ...]:
    """Ascending ``t_1 .. t_n``: ``t_b`` is the smallest integer that lies in bucket ``b`` or above.

    ``n`` is ``num_buckets - 1``, or less where a bucket begins above the largest int64.
    """
    if num_buckets < 1:
        raise ValueError(f"num_buckets must be at least 1, got {num_buckets}")
    highest = math.floor(math.log(_LARGEST_DIFFERENCE) / BUCKET_WIDTH)
    return tuple(_smallest_in_bucket(bucket) for bucket in range(1, min(num_buckets - 1, highest) + 1))


def _smallest_in_bucket(bucket: int) -> int:
    low, high = 1, _LARGEST_DIFFERENCE
    while low < high:
        middle = (low + high) // 2
        if math.floor(math.log(middle) / BUCKET_WIDTH) >= bucket:
            high = middle
        else:
            low = middle + 1
    return low


def bounded_times(times: Tensor) -> Tensor:
    """int64 times of any shape, moved to `LARGEST_TIME` where they are farther from zero."""
    return times.clamp(-LARGEST_TIME, LARGEST_TIME)


def time_buckets(differences: Tensor, num_buckets: int) -> Tensor:
    """Bucket of each time difference.

    Args:
        differences: int64 of any shape, seconds, of `bounded_times`; only the absolute value counts.
        num_buckets: rows of the bias table; larger differences share the last one.

    Returns:
        int32 of the same shape, in ``[0, num_buckets)``.
    """
    magnitude = differences.abs()
    if num_buckets <= _BUCKETS_WITH_SAFE_LOGARITHM:
        logarithm = magnitude.to(torch.float64).clamp_(min=1).log_().div_(BUCKET_WIDTH)
        return logarithm.clamp_(max=num_buckets - 1).to(torch.int32)
    thresholds = torch.tensor(bucket_thresholds(num_buckets), dtype=torch.int64, device=differences.device)
    return torch.bucketize(magnitude, thresholds, right=True, out_int32=True)

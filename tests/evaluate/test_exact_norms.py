"""Norms and fixed-point numbers that come out even."""

from __future__ import annotations

import math

import pytest
import torch

from unigrf_dist.evaluate.fixed_point import exact_norms, from_fixed_point, to_fixed_point


@pytest.mark.parametrize("block_rows", [1, 2, 3, 6, 65536])
@pytest.mark.parametrize("scale", [1.0, 2.0**-100, 2.0**100])
def test_norms_of_whole_triples_are_exact(block_rows: int, scale: float) -> None:
    rows = torch.tensor([[3.0, 4, 0], [0, 0, 0], [-12, 0, 5], [1, -1, 0], [2, 3, -6], [0, 0, 7]])
    (norms,) = exact_norms([rows * scale], 3, block_rows=block_rows)
    assert norms.dtype == torch.float64
    assert norms.tolist() == [scale * norm for norm in (5, 0, 13, math.sqrt(2), 7, 7)]


@pytest.mark.parametrize("width", [1, 1023, 1024, 2047, 2048, 4095, 4096, 8191, 8192, 100_000])
def test_sums_of_squares_do_not_overflow_at_any_width(width: int) -> None:
    value = 1 - 2.0**-24  # the float32 below 1: every square is as large as it can be
    (norms,) = exact_norms([torch.full((1, width), value)], width)
    assert norms.item() == pytest.approx(math.sqrt(width) * value, rel=2**-22)


def test_small_columns_beside_a_large_one_count_to_its_last_bits() -> None:
    (norms,) = exact_norms([torch.tensor([[1.0, 2.0**-20, 2.0**-20]])], 3)
    # In units of 2^-25: 2^25, 2^5 and 2^5.
    assert norms.item() == math.sqrt(2**50 + 2 * 2**10) / 2**25


def test_no_rows_have_no_norms() -> None:
    (norms,) = exact_norms([torch.zeros(0, 4)], 4)
    assert norms.shape == (0,)


def test_fixed_point_is_the_nearest_multiple_of_two_to_the_minus_26() -> None:
    vectors = torch.tensor([[3.0, -4.0], [1.0, 0.0], [0.0, 0.0]])
    fixed = to_fixed_point(vectors, torch.tensor([5.0, 4.0, 1.0], dtype=torch.float64))
    # 0.6 and 0.8 times 2^26 = 67108864 are 40265318.4 and 53687091.2.
    assert fixed.tolist() == [[40265318, -53687091], [2**24, 0], [0, 0]]
    assert fixed.dtype == torch.float64


def test_the_product_of_two_units_is_one() -> None:
    assert from_fixed_point(torch.tensor([2.0**52, -(2.0**51), 0.0])).tolist() == [1.0, -0.5, 0.0]

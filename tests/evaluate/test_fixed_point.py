"""Fixed-point products: exact, hence the same in any order and however columns are cut; close to float64."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unigrf_dist.evaluate.fixed_point import exact_norms, from_fixed_point, to_fixed_point


def vectors(rows: int, width: int, seed: int) -> torch.Tensor:
    """Float32 rows whose lengths and values span many orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp(3 * torch.randn(rows, width, generator=generator))
    return spread * torch.randn(rows, width, generator=generator) * 10.0 ** (seed % 21 - 10)


@given(width=st.integers(1, 300), seed=st.integers(0, 10**6))
def test_products_are_the_same_bits_in_any_order_and_split(width: int, seed: int) -> None:
    x = vectors(6, width, seed)
    (norms,) = exact_norms([x], width)
    fixed = to_fixed_point(x, norms)
    order = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
    cut = seed % (width + 1)
    whole = fixed @ fixed.T
    assert torch.equal(whole, fixed[:, order] @ fixed[:, order].T)
    assert torch.equal(whole, fixed[:, :cut] @ fixed[:, :cut].T + fixed[:, cut:] @ fixed[:, cut:].T)
    assert torch.equal(whole[:, 2:3], fixed @ fixed[2:3].T)
    assert float(whole.abs().max()) < 2**53


def test_products_are_the_exact_sums_of_their_terms() -> None:
    x = vectors(5, 64, 11)
    fixed = to_fixed_point(x, exact_norms([x], 64)[0])
    for i in range(5):
        exact = sum(Fraction(a) * Fraction(b) for a, b in zip(fixed[0].tolist(), fixed[i].tolist(), strict=True))
        assert Fraction(float((fixed[0] * fixed[i]).sum())) == exact


@pytest.mark.parametrize("width", [1, 50, 257, 5000])
def test_cosines_are_as_good_as_float32(width: int) -> None:
    x = vectors(8, width, width)
    fixed = to_fixed_point(x, exact_norms([x], width)[0])
    unit = x.double() / x.double().norm(dim=1, keepdim=True)
    error = (from_fixed_point(fixed @ fixed.T) - unit @ unit.T).abs().max()
    assert float(error) < 2**-24


@pytest.mark.parametrize("width", [1, 7, 50, 3000])
def test_norms_are_the_same_bits_whether_or_not_columns_are_split(width: int) -> None:
    x = torch.cat([vectors(9, width, 5), torch.zeros(1, width), vectors(9, width, 18)])
    cut = width // 3
    (whole,) = exact_norms([x], width)

    def across(reduce: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[list], list]:
        return lambda parts: [reduce(torch.stack(parts))] * len(parts)

    for norms in exact_norms(
        [part for part in (x[:, :cut], x[:, cut:]) if part.shape[1]],
        width,
        across_max=across(lambda parts: parts.amax(0)),
        across_sum=across(lambda parts: parts.sum(0)),
        block_rows=4,
    ):
        assert torch.equal(norms, whole)
    assert torch.allclose(whole, x.double().norm(dim=1), rtol=2e-7, atol=0)
    assert float(whole[9]) == 0.0

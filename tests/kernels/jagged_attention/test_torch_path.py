"""The efficient PyTorch path against the float64 oracle."""

from __future__ import annotations

import pytest
import torch

from .cases import CASES, Case, assert_as_exact_as_eager, make_inputs, run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_gradients(case: Case, dtype: torch.dtype) -> None:
    inputs = make_inputs(case, dtype)
    assert_as_exact_as_eager(inputs, run(inputs, "torch"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference_in_float64(case: Case) -> None:
    """Both round differently in the last places; 1e-10 is far below what any wrong term would leave."""
    inputs = make_inputs(case, torch.float64)
    expected = run(inputs, "reference")
    for name, actual in run(inputs, "torch").items():
        torch.testing.assert_close(
            actual, expected[name], rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )

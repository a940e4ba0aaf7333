"""Means over seeds and paired differences, against values worked by hand and against a paired t-test."""

from __future__ import annotations

import pytest

from unigrf_dist.study.statistics import estimate, paired_difference


def test_three_values_by_hand() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.deviation, found.count) == (2.0, 1.0, 3)
    # Tables give 4.3027 for t(2) at 97.5 %; over the root of 3.
    assert found.half_width == pytest.approx(4.3027 / 3**0.5, abs=1e-4)


def test_one_value_has_no_interval() -> None:
    found = estimate([0.3])
    assert (found.mean, found.deviation, found.half_width) == (0.3, None, None)


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.706), (5, 2.776), (31, 2.042)])
def test_half_widths_are_those_of_the_tables_of_student(count: int, quantile: float) -> None:
    values = [float(i) for i in range(count)]
    # Whole numbers 0 to n - 1 have the variance n (n + 1) / 12 over n - 1, so their mean has (n + 1) / 12.
    assert estimate(values).half_width == pytest.approx(quantile * ((count + 1) / 12) ** 0.5, rel=1e-3)


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert estimate([0.4, 0.4, 0.4]).half_width == pytest.approx(0.0, abs=1e-12)


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    a, b = {1: 0.2, 2: 0.25, 3: 0.21, 4: 0.24}, {1: 0.18, 2: 0.24, 3: 0.2, 4: 0.2}
    found = paired_difference("mrr", a, b)
    assert found is not None
    expected = ttest_rel(list(a.values()), list(b.values())).confidence_interval(0.95)
    assert found.estimate.half_width is not None
    assert found.estimate.mean - found.estimate.half_width == pytest.approx(expected.low)
    assert found.estimate.mean + found.estimate.half_width == pytest.approx(expected.high)


@pytest.mark.parametrize(
    ("metric", "values", "verdict"),
    [
        ("auc", {1: 0.61, 2: 0.71, 3: 0.812}, "better"),
        ("log_loss", {1: 0.61, 2: 0.71, 3: 0.812}, "worse"),
        ("auc", {1: 0.59, 2: 0.69, 3: 0.788}, "worse"),
        ("auc", {1: 0.5, 2: 0.7, 3: 0.9}, "undecided"),
        ("auc", {1: 0.6, 2: 0.7, 3: 0.8}, "undecided"),  # equal on every seed
        ("auc", {1: 0.9, 9: 0.1}, "one seed"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(metric: str, values: dict[int, float], verdict: str) -> None:
    found = paired_difference(metric, values, {1: 0.6, 2: 0.7, 3: 0.8})
    assert found is not None
    assert found.verdict == verdict


def test_only_common_seeds_are_paired() -> None:
    assert paired_difference("auc", {1: 0.5}, {2: 0.4}) is None
    found = paired_difference("auc", {1: 0.5, 2: 0.6, 3: 9.0}, {1: 0.4, 2: 0.5, 4: 0.0})
    assert found is not None
    assert found.estimate.count == 2
    assert found.estimate.mean == pytest.approx(0.1)

"""The arithmetic behind the charts, by hand and by brute force."""

from __future__ import annotations

import re

import numpy as np
import pytest

from unigrf_dist.report import charts, svg
from unigrf_dist.report.charts import Line, length_chart, training_chart, validation_chart

NAN = float("nan")


def line(values: list[float]) -> Line:
    return Line("retrieval", svg.PAGE.retrieval, np.array(values))


def test_running_median_leaves_absent_neighbours_out() -> None:
    values = np.random.default_rng(0).normal(size=200)
    values[[3, 50, 51]] = NAN
    half = 2  # a fortieth of 200 values is 5: two on each side
    expected = [np.nanmedian(values[max(i - half, 0) : i + half + 1]) for i in range(200)]
    assert charts._running_median(values) == pytest.approx(expected)
    assert charts._running_median(np.array([1.0, 5.0])).tolist() == [1.0, 5.0]
    assert np.isnan(charts._running_median(np.full(300, NAN))).all()


def test_one_short_batch_does_not_bend_the_strong_line() -> None:
    values = np.ones(200)
    values[96] = 50.0
    assert charts._running_median(values).tolist() == [1.0] * 200


def test_thinned_points_are_means_and_keep_the_sum() -> None:
    x = np.arange(1201.0)
    points, values = charts._thinned(x, 2 * x)
    assert points[0] == (0 + 1 + 2) / 3
    assert values[-1] == 2 * 1200  # the last group has one member
    assert len(points) == 401
    assert charts._thinned(x[:5], x[:5])[0].tolist() == [0, 1, 2, 3, 4]


def test_wilson_interval_is_the_published_one() -> None:
    # 81 of 263: Newcombe (1998), table I, method 3.
    low, high = charts._wilson_interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_histogram_bins_hold_whole_numbers_and_every_user() -> None:
    lengths = np.array([1, 1, 2, 3, 500])
    edges = charts._length_edges(1, 500)
    assert edges.tolist() == sorted(set(edges.tolist()))
    assert (edges == np.round(edges)).all()
    assert np.histogram(lengths, edges)[0].sum() == 5
    assert charts._length_edges(7, 7).tolist() == [7, 8]


def test_the_note_of_the_length_chart_counts_users_whose_whole_history_is_seen() -> None:
    chart = length_chart(np.array([1, 5, 10, 11]), num_users=9, max_events=10)
    assert chart.note == (
        "Median 8, longest 11; a sample of 4 of 9 users; 75% have no more than the 10 events that the model sees."
    )


@pytest.mark.parametrize(("less_is_better", "best"), [(False, "best 0.9000"), (True, "best 0.1000")])
def test_the_best_validation_is_the_largest_or_the_least(less_is_better: bool, best: str) -> None:
    chart = validation_chart(
        "t", np.arange(4.0), [line([0.5, NAN, 0.9, 0.1])], x_label="epoch", less_is_better=less_is_better
    )
    assert chart.keys[0].value == best


def test_a_series_without_values_is_left_empty() -> None:
    empty = [line([NAN, NAN])]
    assert validation_chart("t", np.arange(2.0), empty, x_label="epoch").keys == []
    assert training_chart("t", np.arange(2.0), empty, x_label="epoch").keys[0].value == "last –"


def test_charts_have_the_colours_of_the_page_only() -> None:
    chart = training_chart("Loss", np.arange(3.0), [line([3.0, 2.0, 1.0])], x_label="epoch", scale="log")
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", chart.svg)) <= {"#000000"}  # matplotlib's own default
    assert "var(--retrieval)" in chart.svg
    assert 'aria-label="Loss"' in chart.svg

"""Ranking tasks as rules on behaviours."""

from __future__ import annotations

import math

import pytest

from unigrf_dist.config.task_rule import label_table, parse_rule, target_behaviours


@pytest.mark.parametrize(
    ("rule", "value", "label"),
    [
        ("rating >= 4", 4, 1),
        ("rating >= 4", 3.5, 0),
        ("rating > 4", 4, 0),
        ("rating == 4", 4, 1),
        ("rating != 4", 4, 0),
        ("rating <= 2.5", 2.5, 1),
        ("rating < -1", 0, 0),
    ],
)
def test_a_rule_labels_a_value(rule: str, value: float, label: float) -> None:
    assert parse_rule(rule).label({"rating": value}) == label


def test_a_behaviour_without_the_value_has_no_label() -> None:
    table = label_table(["click == 1", "like == 1"], [{"click": 1.0}, {"click": 0.0, "like": 1.0}])
    assert table[0][0] == 1
    assert math.isnan(table[0][1])
    assert table[1] == [0.0, 1.0]


def test_a_rule_on_an_unknown_value_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"needs 'stars'.*have: click, rating"):
        label_table(["stars >= 4"], [{"rating": 1.0}, {"click": 1.0}])


def test_targets_are_the_behaviours_that_meet_the_rule() -> None:
    """A behaviour without the value meets no rule on it, and without a rule all are targets."""
    behaviours = [{"click": 1.0}, {"click": 0.0}, {"like": 1.0}, {}]
    assert target_behaviours("click == 1", behaviours) == [True, False, False, False]
    assert target_behaviours("click != 1", behaviours) == [False, True, False, False]
    assert target_behaviours(None, behaviours) == [True] * 4


def test_a_name_may_be_of_any_letters() -> None:
    assert parse_rule("购买 == 1").label({"购买": 1.0}) == 1
    for rule in ("2nd == 1", "a b == 1", "== 1"):
        with pytest.raises(ValueError, match="is no task rule"):
            parse_rule(rule)

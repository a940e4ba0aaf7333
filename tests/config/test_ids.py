"""Which values of ``tables.ids`` go together."""

from __future__ import annotations

from typing import Any

import pytest

from tests.train.small_run import small_config
from unigrf_dist.config.rules import broken_rules

DYNAMIC = {"kind": "dynamic", "capacity": 4}


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ({"capacity": 4}, "tables.ids.capacity is for dynamic ids"),
        ({"evict": "lfu"}, "tables.ids.evict is for dynamic ids"),
        ({"kind": "dynamic"}, "tables.ids.capacity is missing"),
        ({**DYNAMIC, "evict": "ttl"}, "tables.ids.ttl_steps is missing"),
        ({**DYNAMIC, "ttl_steps": 3}, "tables.ids.evict is lru"),
    ],
)
def test_what_contradicts_itself_is_refused(ids: dict[str, Any], said: str) -> None:
    (problem,) = broken_rules(small_config(tables__ids=ids))
    assert said in problem


def test_candidates_must_fit_into_the_rows() -> None:
    (problem,) = broken_rules(small_config(tables__ids=DYNAMIC, objective__enhancer={"candidates": 5}))
    assert "objective.enhancer.candidates is 5, but tables.ids.capacity = 4" in problem


@pytest.mark.parametrize(
    "ids", [{}, {"kind": "static", "evict": "lru"}, {**DYNAMIC, "evict": "ttl", "ttl_steps": 1}]
)
def test_what_fits_is_taken(ids: dict[str, Any]) -> None:
    assert broken_rules(small_config(tables__ids=ids)) == []

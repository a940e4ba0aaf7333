"""Metrics of lists, with fractions that one can redo on paper."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from tools.peers.score import metrics_of_lists
from unigrf_dist.evaluate.bootstrap import Bootstrap

TARGETS = pa.table({"user": [4, 7, 9], "item": [30, 31, 32]})


def lists(*entries: tuple[int, int, int]) -> pa.Table:
    users, ranks, items = zip(*entries, strict=True)
    return pa.table({"user": users, "rank": ranks, "item": items})


def test_a_target_outside_its_own_list_is_a_miss() -> None:
    deep = [(4, rank, 100 + rank) for rank in range(2, 11)]
    found = metrics_of_lists(
        TARGETS, lists((4, 1, 30), *deep, (7, 1, 30), (7, 2, 31), (9, 1, 31)), Bootstrap(samples=0)
    )
    assert found.keys() == {"hr@1", "hr@10", "ndcg@10"}
    assert found["hr@1"].value == pytest.approx(1 / 3)
    assert found["hr@10"].value == pytest.approx(2 / 3)
    assert found["ndcg@10"].value == pytest.approx((1 + 1 / math.log2(3)) / 3)


def test_an_item_twice_in_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        metrics_of_lists(TARGETS, lists((4, 1, 30), (4, 2, 30)), Bootstrap(samples=0))

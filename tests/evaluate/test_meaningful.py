"""Hit rates of lists that hold much of the catalogue."""

from __future__ import annotations

import pytest

from unigrf_dist.evaluate.meaningful import marked_by_catalogue
from unigrf_dist.evaluate.metric import Metric


@pytest.mark.parametrize(
    ("num_items", "value", "reason", "note"),
    [
        (200, None, "a list of 200 holds all 200 items", ""),
        (201, 0.9, "", "200 of 201 items: any order hits 100%"),
        (210, 0.9, "", "200 of 210 items: any order hits 95%"),
        (800, 0.9, "", "200 of 800 items: any order hits 25%"),
        (801, 0.9, "", ""),
    ],
)
def test_a_long_list_is_marked(num_items: int, value: float | None, reason: str, note: str) -> None:
    metrics = {"hr@200": Metric(0.9, 0.8, 0.95), "ndcg@200": Metric(0.4), "hr@10": Metric(0.2)}
    found = marked_by_catalogue(metrics, num_items)
    assert (found["hr@200"].value, found["hr@200"].reason, found["hr@200"].note) == (value, reason, note)
    assert (found["ndcg@200"], found["hr@10"]) == (metrics["ndcg@200"], metrics["hr@10"])
    record = found["hr@200"].to_dict()
    assert set(record) == {"value", "low", "high"} | ({"reason"} if reason else set()) | (
        {"note"} if note else set()
    )

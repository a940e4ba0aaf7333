"""Lambda, chosen on validation: the curve by brute force, the rule, and that a run's lists follow it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.data.small_sets import RATINGS
from tests.serve.conftest import USERS
from unigrf_dist.report import write_report
from unigrf_dist.serve import Recommender
from unigrf_dist.serve.blend import LAMBDAS, choose_blend
from unigrf_dist.serve.blend_file import write_blend


@pytest.fixture(scope="module")
def recommender(runs: Path) -> Recommender:
    return Recommender(runs / "old")


def ndcg(recommender: Recommender, blend: dict[str, float], least_stars: int = 0) -> float:
    """NDCG@10 of the event before the last one, list by list."""
    gains = []
    for events in USERS:
        if len(events) >= 3 and events[-2][1] + 1 >= least_stars:
            history = [(10 * item, RATINGS[code], time) for item, code, time in events[:-2]]
            entries = recommender.recommend(history=history, at=events[-2][2], k=10, blend=blend).entries
            found = [rank for rank, entry in enumerate(entries, 1) if entry.item == 10 * events[-2][0]]
            gains.append(1 / math.log2(1 + found[0]) if found else 0.0)
    return sum(gains) / len(gains)


def test_the_curve_is_that_of_lists_made_one_by_one(recommender: Recommender) -> None:
    choice = choose_blend(recommender)
    assert choice.num_users == sum(len(events) >= 3 for events in USERS)
    chosen: dict[str, float] = {}
    for task, stars in (("rating >= 4", 4), ("rating >= 2", 2)):
        points = choice.curves[task]
        assert [point.value for point in points] == list(LAMBDAS)
        for point in (points[0], points[4], points[-1]):
            blend = {**chosen, task: point.value}
            assert point.ndcg == pytest.approx(ndcg(recommender, blend), abs=1e-6)
            assert point.liked == pytest.approx(ndcg(recommender, blend, stars), abs=1e-6)
        chosen[task] = choice.blend[task]


def test_the_largest_lambda_that_costs_little_and_harms_nothing_is_chosen(recommender: Recommender) -> None:
    choice = choose_blend(recommender)
    bases = {task: points[0] for task, points in choice.curves.items()}
    task = "rating >= 4"  # the first, whose curve begins without any blend
    fine = [
        point.value
        for point in choice.curves[task]
        if point.ndcg >= 0.99 * bases[task].ndcg and point.liked >= bases[task].liked
    ]
    assert 0.0 in fine
    assert choice.blend[task] <= max(fine)
    if choice.blend[task] < max(fine):  # only what lowers another task's liked items can have kept it lower
        blend = {task: max(fine)}
        assert ndcg(recommender, blend, 2) < ndcg(recommender, {}, 2)


def test_a_runs_own_blend_orders_its_lists_and_stands_in_its_report(runs: Path, recommender: Recommender) -> None:
    record = choose_blend(recommender).to_dict()
    record["blend"] = {"rating >= 4": 0.75, "rating >= 2": 0.0}
    file = write_blend(runs / "old", record)
    try:
        loaded = Recommender(runs / "old")
        assert loaded.recommend(user=104) == recommender.recommend(user=104, blend={"rating >= 4": 0.75})
        assert loaded.recommend(user=104, blend={}) == recommender.recommend(user=104)
        text = write_report(runs / "old", runs / "report.html").read_text()
        assert "NDCG@10 over λ of rating &gt;= 4" in text
        assert "Chosen: λ = 0.75" in text
        write_blend(runs / "old", {**record, "checkpoint": "step-00000009"})
        assert Recommender(runs / "old").recommend(user=104) == recommender.recommend(user=104)
    finally:
        file.unlink()

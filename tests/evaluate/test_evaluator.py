"""A whole evaluation: metrics against loops in plain Python, and the same on 1, 2 and 4 ranks."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from tests.evaluate.evaluations import both_splits, both_splits_on_this_rank, evaluated, retrieval_on_targets
from tests.evaluate.small_data import (
    NUM_ITEMS,
    TASK_LABELS,
    TASKS,
    LastEventModel,
    drawn_users,
    write_users,
)
from tests.spawn import run_ranks
from unigrf_dist.data import JaggedBatch, open_dataset
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate import evaluator
from unigrf_dist.evaluate.evaluator import evaluate
from unigrf_dist.model.unigrf import SequenceScores

USERS = drawn_users(50, seed=4)
ENOUGH = [user for user in USERS if len(user) >= 3]


@dataclass(frozen=True)
class Plain:
    """A user's rank and logits, computed one item at a time.

    Attributes:
        met: whether the user had met the target at all, ``shown``: in the window of the model.
    """

    rank: int
    met: bool
    shown: bool
    logits: list[float]
    labels: list[float]


WINDOW = 5


def plain(split: str, rule: str = "exclude") -> list[Plain]:
    model, at = LastEventModel(), {"test": -1, "validation": -2}[split]
    rows = []
    for user in ENOUGH:
        (target, behaviour, _), (item, before, _) = user[at], user[at - 1]
        query = (model.items[item] + model.by_behaviour[before]).double()
        scores = [float(query @ each.double() / each.double().norm()) for each in model.items]
        history = [event[0] for event in user[:at]]
        shown = history[-WINDOW:]
        seen = set({"exclude": history, "window": shown, "keep": []}[rule]) - {target}
        rank = 1 + sum(s > scores[target] for i, s in enumerate(scores) if i not in seen)
        product = (query.float() * model.items[target]).tolist()
        logits = [product[0] - product[1], product[2] + 1]
        rows.append(Plain(rank, target in history, target in shown, logits, TASK_LABELS[behaviour].tolist()))
    return rows


def check_retrieval(found: dict[str, Any], ranks: list[int]) -> None:
    for k in (1, 10):
        assert found[f"hr@{k}"] == pytest.approx(sum(rank <= k for rank in ranks) / len(ranks))
    gain = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= 10)
    assert found["ndcg@10"] == pytest.approx(gain / len(ranks))
    assert found["mrr"] == pytest.approx(float(sum(Fraction(1, rank) for rank in ranks) / len(ranks)))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_metrics_are_those_of_a_loop_over_users_and_items(split: str, tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    result, rows = evaluated(tmp_path / "data", split=split), plain(split)
    assert result.num_users == len(rows)
    check_retrieval(result.metrics()["retrieval"], [row.rank for row in rows if not row.met])
    assert 0 < result.protocol["users_without_target"] == sum(row.met for row in rows) < len(rows)
    for a, task in enumerate(TASKS):
        labels = [row.labels[a] for row in rows if not math.isnan(row.labels[a])]
        logits = [row.logits[a] for row in rows if not math.isnan(row.labels[a])]
        metrics = result.metrics()["ranking"][task]
        assert metrics["auc"] == pytest.approx(roc_auc_score(labels, logits))
        assert metrics["log_loss"] == pytest.approx(log_loss(labels, [1 / (1 + math.exp(-x)) for x in logits]))
        assert sum(each.count for each in result.model.calibration_bins[task]) == len(labels)


@pytest.mark.parametrize("rule", ["keep", "window"])
def test_items_met_before_stay_in_the_ranking_as_the_rule_says(rule: str, tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    result, rows = evaluated(tmp_path / "data", seen=rule), plain("test", rule)
    removed = [row.shown and rule == "window" for row in rows]
    left = [row for row, gone in zip(rows, removed, strict=True) if not gone]
    assert result.protocol["users_without_target"] == sum(removed)
    check_retrieval(result.metrics()["retrieval"], [row.rank for row in left])
    for group, met in (("new", False), ("repeated", True)):
        found = {name: metric.value for name, metric in result.model.retrieval_of[group].items()}
        check_retrieval(found, [row.rank for row in left if row.met == met])
    assert ("repeat_last" in result.baselines) == (rule == "keep")
    assert set(result.baselines["popularity"].retrieval_of) == {"new", "repeated"}
    assert "% of the events repeat an item" in result.protocol["repeats"]


@pytest.mark.parametrize("world_size", [1, 2])
def test_retrieval_is_measured_on_targets_alone_and_ranking_on_all(world_size: int, tmp_path: Path) -> None:
    data = write_users(tmp_path / "data", USERS)
    rule = "rating >= 3"
    held_out = [data.manifest.behaviours[user[-1][1]].get("rating", math.nan) for user in ENOUGH]
    rows = zip(plain("test"), held_out, strict=True)
    ranks = [row.rank for row, value in rows if value >= 3 and not row.met]
    assert 0 < len(ranks) < len(ENOUGH)
    results = run_ranks(world_size, retrieval_on_targets, str(data.path), rule)
    for found in results:
        assert found["retrieval"]["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / len(ranks))
        assert found["retrieval"]["hr@10"] == pytest.approx(sum(rank <= 10 for rank in ranks) / len(ranks))
        assert found["ranking"] == evaluated(tmp_path / "data").metrics()["ranking"]
    result = evaluated(tmp_path / "data", targets=rule)
    assert (result.num_users, result.protocol["retrieval_targets"]) == (len(ENOUGH), rule)


def test_items_seen_before_the_window_are_removed_too(tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    assert max(len(user) for user in ENOUGH) > 20
    narrow, wide = (evaluated(tmp_path / "data", max_events=n, comparisons=False) for n in (1, 50))
    # The model looks at the last event only, so a wider window changes nothing.
    assert narrow.model == wide.model


@pytest.mark.parametrize("world_size", [2, 4])
def test_every_metric_and_interval_is_the_same_on_any_number_of_ranks(world_size: int, tmp_path: Path) -> None:
    data = str(write_users(tmp_path / "data", USERS).path)
    alone = both_splits(data)
    assert run_ranks(world_size, both_splits_on_this_rank, data) == [alone] * world_size


def test_batch_size_changes_nothing(tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    assert evaluated(tmp_path / "data", batch_users=1).model == evaluated(tmp_path / "data", batch_users=99).model


def test_a_user_lost_or_counted_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_users(tmp_path / "data", USERS)
    whole = evaluator.EvaluationStream

    class Faulty(whole):
        def __iter__(self) -> Any:
            batches = list(super().__iter__())
            yield from [*batches[:-1], *self.instead(batches[-1])]

    for instead in (lambda self, last: [], lambda self, last: [last, last]):
        monkeypatch.setattr(Faulty, "instead", instead, raising=False)
        monkeypatch.setattr(evaluator, "EvaluationStream", Faulty)
        with pytest.raises(RuntimeError, match=f"but {len(ENOUGH)} have a held-out event"):
            evaluated(tmp_path / "data")


def test_a_user_lost_for_another_counted_twice_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_users(tmp_path / "data", USERS)
    whole = evaluator.EvaluationStream

    class Faulty(whole):
        def __iter__(self) -> Any:
            users = [batch for batch in super().__iter__() if batch.batch.num_users]
            yield from (users[0], users[0], *users[2:])

    monkeypatch.setattr(evaluator, "EvaluationStream", Faulty)
    lost = f"evaluated {len(ENOUGH)} users, {len(ENOUGH) - 1} different ones, but {len(ENOUGH)} have"
    with pytest.raises(RuntimeError, match=lost):
        evaluated(tmp_path / "data", batch_users=1)


def test_the_result_says_how_it_was_measured(tmp_path: Path) -> None:
    data = write_users(tmp_path / "data", USERS)
    for samples, level in ((0, None), (20, 0.95)):
        result = evaluated(tmp_path / "data", split="validation", bootstrap_samples=samples)
        assert result.split == "validation"
        assert result.protocol == {
            "split_rule": open_dataset(tmp_path / "data").manifest.split_rule,
            "candidates": NUM_ITEMS,
            "seen": "exclude",
            "seen_items": "all earlier items of the user are removed, and with them "
            f"{sum(row.met for row in plain('validation'))} users whose held-out item is one of these",
            "users_without_target": sum(row.met for row in plain("validation")),
            "repeats": f"{data.manifest.num_repeats / data.manifest.num_events:.0%} of the events repeat an item",
            "ties": "half of the items with the target's score stand before it, rounded up",
            "max_events": 5,
            "bootstrap_samples": samples,
            "confidence_level": level,
        }
        assert list(result.baselines) == [
            "popularity", "most_recent", "transition_knn", "item_knn", "ease", "user_item_mean", "label_regression"
        ]  # fmt: skip
        popularity, most_recent, *_ = result.baselines.values()
        assert popularity.retrieval != most_recent.retrieval
        defined = [metric for metric in result.model.retrieval.values() if metric.value is not None]
        intervals = [metric.low is not None for metric in defined]
        assert set(intervals) == {samples > 0}


def test_comparisons_are_made_and_intervals_drawn_as_asked(tmp_path: Path) -> None:
    data = write_users(tmp_path / "data", USERS)
    (tmp_path / "data" / "planted.json").write_text('{"test": {"retrieval": {}, "ranking": {}}}')
    settings = {"split": "test", "batch_users": 6, "max_events": 5, "rank": 0, "world_size": 1}
    result = evaluate(LastEventModel(), data, **settings)
    assert result.baselines == {}
    assert result.planted_optimum is None
    assert result.protocol["bootstrap_samples"] == 1000


def test_a_user_without_history_is_an_error_and_not_a_zero_query(tmp_path: Path) -> None:
    class Invalid(LastEventModel):
        def score(self, batch: JaggedBatch) -> SequenceScores:
            return super().score(batch)._replace(valid=torch.zeros(batch.num_users, dtype=torch.bool))

    data = write_users(tmp_path / "data", USERS)
    settings = {"split": "test", "batch_users": 6, "max_events": 5, "rank": 0, "world_size": 1}
    with pytest.raises(ValueError, match="no event before the held-out one"):
        evaluate(Invalid(), data, **settings)


def test_progress_ends_with_the_last_batch(tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    told: list[tuple[int, int]] = []
    evaluated(tmp_path / "data", on_progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 9) for i in range(1, 10)]


def test_data_without_held_out_events_have_no_metrics(tmp_path: Path) -> None:
    write_users(tmp_path / "data", [user[:2] for user in USERS])
    result = evaluated(tmp_path / "data")
    assert result.num_users == 0
    assert set(result.metrics()["retrieval"].values()) == {None}


def test_metrics_without_intervals_are_plain_numbers(tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    result = evaluated(tmp_path / "data", bootstrap_samples=0, comparisons=False)
    assert result.baselines == {}
    assert all(metric.low is None for metric in result.model.retrieval.values())
    assert json.loads(json.dumps(result.metrics())) == result.metrics()


def test_the_planted_optimum_is_read_for_the_split(tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    optimum = {"retrieval": {"hr@10": 0.5}, "ranking": {TASKS[0]: {"auc": 0.8, "log_loss": 0.4}}}
    (tmp_path / "data" / "planted.json").write_text(json.dumps({"test": optimum}))
    assert evaluated(tmp_path / "data").planted_optimum == optimum
    with pytest.raises(UserError, match=r"planted\.json: no planted optimum of split validation"):
        evaluated(tmp_path / "data", split="validation")

"""Neighbours and EASE against their definitions, as plain loops or as the problem that they solve."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.evaluate.small_data import NUM_ITEMS, TASK_LABELS, drawn_users, write_users
from unigrf_dist.data import Dataset, EvaluationStream, open_dataset
from unigrf_dist.evaluate.opponents import fit as fitting
from unigrf_dist.evaluate.opponents.fit import RETRIEVAL_OPPONENTS, Opponents, fit_opponents
from unigrf_dist.evaluate.opponents.item_to_item import ItemToItem
from unigrf_dist.evaluate.opponents.neighbours import ease_weights, item_knn, transition_knn
from unigrf_dist.evaluate.opponents.validation_sample import ValidationSample
from unigrf_dist.evaluate.training_statistics import training_events, training_statistics

USERS = drawn_users(40)
ENOUGH = [[event[0] for event in user] for user in USERS if len(user) >= 3]
TRAINING = [[event[0] for event in (user[:-2] if len(user) >= 3 else user)] for user in USERS]
WINDOW = 12


def ranks(scorer: ItemToItem, dataset: Dataset, split: str = "test") -> list[int]:
    stream = EvaluationStream(dataset, split=split, batch_users=7, max_events=WINDOW, rank=0, world_size=1)
    return [rank for batch in stream for rank in scorer.score_users(batch).ranks.tolist()]


def plain_ranks(matrix: np.ndarray, half_life: float, longest: int) -> list[int]:
    """Ranks of the test items, with scores that loops over the latest events add up."""
    result = []
    for items in ENOUGH:
        history, target = items[:-1], items[-1]
        scores = [0.0] * NUM_ITEMS
        for event in reversed(range(len(history))):
            age = len(history) - 1 - event
            if age < min(longest, WINDOW):
                for j in range(NUM_ITEMS):
                    scores[j] += 0.5 ** (age / half_life) * matrix[history[event], j]
        others = [scores[j] for j in range(NUM_ITEMS) if j != target and j not in history]
        equal = sum(math.isclose(s, scores[target], rel_tol=1e-12) for s in others)
        better = sum(s > scores[target] and not math.isclose(s, scores[target], rel_tol=1e-12) for s in others)
        result.append(1 + better + -(-equal // 2))
    return result


@pytest.mark.parametrize("sparse", [True, False])
def test_recent_events_ask_the_matrix_and_fade_with_age(sparse: bool, tmp_path: Path) -> None:
    matrix = np.random.default_rng(3).random((NUM_ITEMS, NUM_ITEMS))
    matrix[:, ::3] = 0
    scorer = ItemToItem(csr_array(matrix) if sparse else matrix, half_life=2.0, longest=5)
    assert ranks(scorer, write_users(tmp_path / "data", USERS)) == plain_ranks(matrix, 2.0, 5)


def test_transition_knn_follows_its_formula(tmp_path: Path) -> None:
    dataset = write_users(tmp_path / "data", USERS)
    family = transition_knn(lambda: training_events(dataset, 0, 1), NUM_ITEMS)
    chosen = family.build({"half-life": 3, "damping": 0.6, "gaps": 10})
    counts = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for items in TRAINING:
        for i, first in enumerate(items):
            for gap, then in enumerate(items[i + 1 : i + 11], start=1):
                counts[first, then] += gap**-0.5
    out, into = np.maximum(counts.sum(1), 1), np.maximum(counts.sum(0), 1)
    expected = plain_ranks(counts / out[:, None] ** 0.5 / into[None, :] ** 0.6, 3.0, 30)
    assert ranks(chosen, dataset) == expected


@pytest.mark.parametrize("sparse", [True, False])
def test_item_knn_keeps_the_nearest_of_each_item_and_never_itself(sparse: bool) -> None:
    users = np.random.default_rng(0).random((30, 8)) < 0.4
    together = users.T.astype(np.int64) @ users
    matrix = item_knn(csr_array(together) if sparse else together).build({"half-life": 2, "nearest": 2}).matrix
    matrix = matrix.toarray() if sparse else matrix
    for j in range(8):
        cosine = [
            0.0 if i == j else (users[:, i] & users[:, j]).sum() / math.sqrt(users[:, i].sum() * users[:, j].sum())
            for i in range(8)
        ]
        cut = sorted(cosine)[-2]
        assert matrix[:, j].tolist() == pytest.approx([c if c >= cut else 0.0 for c in cosine])


def test_ease_is_the_least_penalised_squared_error_without_a_diagonal() -> None:
    users = (np.random.default_rng(0).random((30, 6)) < 0.4).astype(float)
    weights = ease_weights(users.T @ users, 5.0)
    assert (np.diag(weights) == 0).all()
    for j in range(6):  # the ridge regression of each item on all the others
        others = [i for i in range(6) if i != j]
        x = users[:, others]
        expected = np.linalg.solve(x.T @ x + 5.0 * np.eye(5), x.T @ users[:, j])
        assert weights[others, j].tolist() == pytest.approx(expected.tolist())


def fitted(dataset: Dataset) -> tuple[Opponents, ValidationSample]:
    statistics = training_statistics(dataset, TASK_LABELS, rank=0, world_size=1)
    every = TASK_LABELS[:, 0] == TASK_LABELS[:, 0]
    share = {"batch_users": 6, "max_events": WINDOW, "rank": 0, "world_size": 1}
    sample = ValidationSample(dataset, every, **share, seen="exclude")
    return fit_opponents(
        dataset, statistics, TASK_LABELS, sample, num_users=len(USERS), rank=0, world_size=1
    ), sample


def test_no_other_value_of_one_setting_is_better_on_validation(tmp_path: Path) -> None:
    dataset = write_users(tmp_path / "data", USERS)
    _, sample = fitted(dataset)
    family = transition_knn(lambda: training_events(dataset, 0, 1), NUM_ITEMS)
    best, words = sample.best(family)
    picked = {name: float(value.split()[0]) for part in words.split(", ") for name, value in [part.split(" ", 1)]}

    held_out = [(items[:-2], items[-2]) for items in ENOUGH]

    def gain(settings: dict[str, float]) -> float:
        found = zip(ranks(family.build(settings), dataset, "validation"), held_out, strict=True)
        # Under this rule a target that was seen is in no ranking.
        found = [rank for rank, (history, target) in found if target not in history]
        return sum(1 / math.log2(1 + rank) for rank in found if rank <= 10)

    assert ranks(best, dataset) == ranks(family.build(picked), dataset)
    values = {gain(picked)}
    for name, axis in family.axes.items():
        index = axis.values.index(picked[name])
        for other in axis.values[max(index - 1, 0) : index + 2]:
            values.add(gain({**picked, name: other}))
    assert max(values) == pytest.approx(gain(picked))
    assert len({round(value, 9) for value in values}) > 1


def test_what_is_too_large_is_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "EASE_MOST_ITEMS", NUM_ITEMS - 1)
    opponents, _ = fitted(write_users(tmp_path / "data", USERS))
    assert opponents.skipped == {"ease": f"{NUM_ITEMS} items, more than {NUM_ITEMS - 1}"}
    assert "ease" not in opponents.scorers
    monkeypatch.setattr("unigrf_dist.evaluate.opponents.item_pairs.DENSE_MOST_ITEMS", 0)
    monkeypatch.setattr("unigrf_dist.evaluate.opponents.item_pairs.MOST_PAIRS", 3)
    opponents, _ = fitted(write_users(tmp_path / "again", USERS))
    assert set(opponents.skipped) == {"transition_knn", "item_knn", "ease"}
    assert set(opponents.scorers) == {"user_item_mean", "label_regression"}
    for limit, names, reason in (
        ("MOST_SCORES", RETRIEVAL_OPPONENTS, "40 users × 37 items are more than 3 scores"),
        ("MOST_WORK", RETRIEVAL_OPPONENTS, "more than 3 pairs of events"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(fitting, limit, 3)
            opponents, _ = fitted(open_dataset(tmp_path / "again"))
            assert opponents.skipped == dict.fromkeys(names, reason)


def test_a_sample_of_users_is_drawn_by_their_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unigrf_dist.evaluate.opponents.validation_sample.MOST_USERS", 12)
    dataset = write_users(tmp_path / "data", USERS)
    samples = []
    for world_size in (1, 2):
        every = TASK_LABELS[:, 0] == TASK_LABELS[:, 0]
        parts = [
            ValidationSample(
                dataset, every, batch_users=6, max_events=5, rank=rank, world_size=world_size, seen="exclude"
            )
            for rank in range(world_size)
        ]
        batches = [batch for part in parts for batch in part.batches]
        samples.append(sorted(user for batch in batches for user in batch.batch.user_ids.tolist()))
        for batch in batches:
            for row, user in enumerate(batch.batch.user_ids.tolist()):
                items = [event[0] for event in USERS[user]]
                seen = batch.seen_item_ids[batch.seen_offsets[row] : batch.seen_offsets[row + 1]]
                shown = batch.batch.item_ids[batch.batch.offsets[row] : batch.batch.offsets[row + 1]]
                assert seen.tolist() == items[:-2]
                assert shown.tolist() == items[:-1][-6:]
    assert samples[0] == samples[1]
    assert 4 <= len(samples[0]) <= 20

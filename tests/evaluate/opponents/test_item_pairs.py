"""Counts of item pairs against loops over the users' lists, on one rank and on two."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from tests.evaluate.small_data import NUM_ITEMS, drawn_users, write_users
from tests.spawn import run_ranks
from unigrf_dist.data import open_dataset
from unigrf_dist.evaluate.opponents import item_pairs
from unigrf_dist.evaluate.opponents.item_pairs import WEIGHT_ONE, TooManyPairs, co_occurrences, transitions
from unigrf_dist.evaluate.training_statistics import training_events

USERS = drawn_users(40)
TRAINING = [[event[0] for event in (user[:-2] if len(user) >= 3 else user)] for user in USERS]


def counted(data: str, rank: int = 0, world_size: int = 1) -> tuple[np.ndarray, np.ndarray]:
    dataset = open_dataset(data)
    gaps = transitions(training_events(dataset, rank, world_size), NUM_ITEMS, first_gap=2, last_gap=4)
    together = co_occurrences(training_events(dataset, rank, world_size), NUM_ITEMS)
    return tuple(each if isinstance(each, np.ndarray) else each.toarray() for each in (gaps, together))


def counted_on_this_rank(data: str, dense_most_items: int) -> tuple[np.ndarray, np.ndarray]:
    item_pairs.DENSE_MOST_ITEMS = dense_most_items
    return counted(data, dist.get_rank(), dist.get_world_size())


def too_many_on_this_rank(data: str, most: int) -> bool:
    item_pairs.MOST_PAIRS, item_pairs.DENSE_MOST_ITEMS = most, 0
    try:
        counted(data, dist.get_rank(), dist.get_world_size())
    except TooManyPairs:
        return True
    return False


def test_counts_are_those_of_plain_loops_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_users(tmp_path / "data", USERS)
    after, both = Counter(), Counter()
    for items in TRAINING:
        for i, first in enumerate(items):
            for gap in (2, 3, 4):
                if i + gap < len(items):
                    after[first, items[i + gap]] += 1 / gap**0.5
        both.update((a, b) for a in set(items) for b in set(items))
    whole, as_products = item_pairs._PIECE_PAIRS, 0
    for dense, pairs, quicker in ((0, whole, 1), (0, 50, 1), (99, 50, 10**9), (99, 50, as_products)):
        monkeypatch.setattr(item_pairs, "DENSE_MOST_ITEMS", dense)
        monkeypatch.setattr(item_pairs, "_PIECE_PAIRS", pairs)
        monkeypatch.setattr(item_pairs, "_DENSE_IS_QUICKER", quicker)
        gaps, together = counted(str(tmp_path / "data"))
        for i in range(NUM_ITEMS):
            for j in range(NUM_ITEMS):
                assert gaps[i, j] / WEIGHT_ONE == pytest.approx(after[i, j], rel=1e-4)
                assert together[i, j] == both[i, j]


@pytest.mark.parametrize("dense_most_items", [0, NUM_ITEMS])
def test_two_ranks_count_what_one_counts(dense_most_items: int, tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    alone = counted(str(tmp_path / "data"))
    for of_rank in run_ranks(2, counted_on_this_rank, str(tmp_path / "data"), dense_most_items):
        for mine, expected in zip(of_rank, alone, strict=True):
            assert (mine == expected).all()


def test_too_many_pairs_are_found_by_all_ranks_though_none_holds_as_many(tmp_path: Path) -> None:
    write_users(tmp_path / "data", USERS)
    _, together = counted(str(tmp_path / "data"))
    most = int((together > 0).sum())
    assert run_ranks(2, too_many_on_this_rank, str(tmp_path / "data"), most) == [False, False]
    assert run_ranks(2, too_many_on_this_rank, str(tmp_path / "data"), most - 1) == [True, True]


def test_one_user_of_too_many_items_is_not_multiplied_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_users(tmp_path / "data", [[(item, 0, item) for item in range(20)]])
    monkeypatch.setattr(item_pairs, "DENSE_MOST_ITEMS", 0)
    monkeypatch.setattr(item_pairs, "MOST_PAIRS", 18 * 18)
    co_occurrences(training_events(dataset, 0, 1), NUM_ITEMS)
    monkeypatch.setattr(item_pairs, "MOST_PAIRS", 18 * 18 - 1)
    with pytest.raises(TooManyPairs):
        co_occurrences(training_events(dataset, 0, 1), NUM_ITEMS)

"""Side features in training: N ranks equal one, and a resumed run equals one that never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.spawn import run_ranks
from tests.train.small_features import FEATURES
from tests.train.small_run import small_config
from tests.train.test_checkpoint import load_and_train, load_message, train_and_save
from tests.train.test_parity import ENHANCED, ONE, STAYING, THREE, TWO, assert_close, train

TABLES = [f"{name} table" for name in ("item_genre", "item_year", "item_brand", "user_gender", "user_age")]


@pytest.fixture(scope="module")
def one_rank() -> dict[str, torch.Tensor]:
    (weights,) = run_ranks(1, train, 0, FEATURES, ONE)
    return weights


def test_every_table_learns_from_zero_on(one_rank: dict[str, torch.Tensor]) -> None:
    (plain,) = run_ranks(1, train, 0, {}, ONE)
    assert torch.equal(one_rank["trace"][0], plain["trace"][0])
    assert not torch.equal(one_rank["trace"][1], plain["trace"][1])
    for name in TABLES:
        assert one_rank[name].abs().max() > 1e-3, name


@pytest.mark.parametrize(
    ("stage", "shares", "changes"),
    [(3, TWO, {}), (2, THREE, {}), (2, TWO, {"tables__sharding": "table_wise"})],
    ids=["two-zero3", "three-zero2", "two-table_wise"],
)
def test_ranks_equal_one_though_some_hold_no_row_of_a_table(
    stage: int, shares: list, changes: dict, one_rank: dict[str, torch.Tensor]
) -> None:
    for weights in run_ranks(len(shares[0]), train, stage, {**changes, **FEATURES}, shares):
        assert_close(weights, one_rank, 1e-5)


def test_two_ranks_equal_one_with_tables_cut_by_columns_and_candidates() -> None:
    tables = {"tables__sharding": "column_wise", "tables__optimizer": "adagrad", "model__width": 16}
    changes = {**tables, **FEATURES, "objective__enhancer": ENHANCED}
    (alone,) = run_ranks(1, train, 0, changes, ONE)
    for weights in run_ranks(2, train, 0, changes, STAYING):
        assert_close(weights, alone, 1e-5)


def test_a_run_goes_on_bit_equal_and_with_other_ranks_and_no_other_model_takes_it(tmp_path: Path) -> None:
    config = small_config(2, **FEATURES)
    through = run_ranks(2, train_and_save, tmp_path, config, 3, 6)
    for before, after in zip(through, run_ranks(2, load_and_train, tmp_path, config, 6), strict=True):
        for name, value in before.items():
            assert torch.equal(after[name], value), name
    for weights in run_ranks(3, load_and_train, tmp_path, config, 6):
        assert_close(weights, through[0], 1e-5)
    (told,) = run_ranks(1, load_message, tmp_path, small_config(2))
    assert "checkpoint of another model: item_brand is 2000 there, absent here; use the configuration" in told

"""Scores over shards, on numbers that come out even: which chunks there are, which divisor an item gets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.spawn import run_ranks
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.sharded_scores import ShardedScores
from unigrf_dist.model.table_shard import TableShard
from unigrf_dist.ranks.collective import Collective

ONE = 2.0**26  # in fixed point
ITEMS = torch.tensor([[3.0, 4, 0], [0, 0, 8], [0, 0, 0], [0, -2, 0], [6, 0, 8]])
QUERIES = torch.tensor([[1.0, 0, 0], [0, 0, 1]]).double() * ONE
COSINES = [[0.6, 0, 0, 0, 0.6], [0, 1, 0, 0, 0.8]]
CPU = torch.device("cpu")


def scores_of(shards: list[TableShard], **changes: Any) -> ShardedScores:
    settings = {"num_items": 5, "dim": 3, "normalize": True, "ranks": Collective(), "chunk_bytes": 1 << 20}
    return ShardedScores(shards, **{**settings, **changes})


def shard(first: int, last: int, column: int = 0, stop: int = 3) -> TableShard:
    return TableShard(first, column, ITEMS[first:last, column:stop].clone())


WHOLE = [shard(0, 5)]
ROWS = [shard(3, 5), shard(0, 3)]
COLUMNS = [shard(0, 5, 1, 3), shard(0, 5, 0, 1)]


def collected(of: ShardedScores, queries: Tensor = QUERIES) -> tuple[list[tuple[int, int]], Tensor]:
    """First item and length of each chunk, and the scores of all of them side by side, in units of 1."""
    chunks = list(of.chunks(queries))
    return [(first, scores.shape[1]) for first, scores in chunks], torch.cat([s for _, s in chunks], 1) / ONE**2


@pytest.mark.parametrize("shards", [WHOLE, ROWS, COLUMNS], ids=["whole", "rows", "columns"])
def test_scores_are_cosines_however_the_table_is_cut(shards: list[TableShard]) -> None:
    of = scores_of(shards)
    assert of.split_by_columns == (shards is COLUMNS)
    _, scores = collected(of)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, torch.tensor(COSINES).double(), rtol=0, atol=2.0**-25)
    assert of.unit(CPU) == 1.0
    asked = torch.tensor([4, 1])
    assert torch.equal(of.of_items(QUERIES, asked) / ONE**2, scores[[0, 1], asked])


@pytest.mark.parametrize("shards", [WHOLE, ROWS, COLUMNS], ids=["whole", "rows", "columns"])
def test_products_are_in_units_of_the_longest_item(shards: list[TableShard]) -> None:
    of = scores_of(shards, normalize=False)
    assert of.unit(CPU) == 10.0
    _, scores = collected(of)
    products = QUERIES / ONE @ ITEMS.double().T
    torch.testing.assert_close(10 * scores, products, rtol=0, atol=2.0**-22)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_table_of_zeros_scores_zero(normalize: bool) -> None:
    of = scores_of([TableShard(0, 0, torch.zeros(5, 3))], normalize=normalize)
    assert of.unit(CPU) == 1.0
    assert not collected(of)[1].any()


def test_items_shorter_than_a_millionth_are_divided_by_that() -> None:
    items = ITEMS.clone()
    items[3] = torch.tensor([0, 0, 2.0**-21])
    _, scores = collected(scores_of([TableShard(0, 0, items)]))
    # 2^-21 is less than 1e-6.
    assert scores[1, 3].item() == pytest.approx(2.0**-21 / 1e-6, abs=2.0**-26)


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        (WHOLE, [(0, 2), (2, 2), (4, 1)]),
        (ROWS, [(0, 2), (2, 1), (3, 2)]),
        (COLUMNS, [(0, 2), (2, 2), (4, 1)]),
    ],
    ids=["whole", "rows", "columns"],
)
def test_a_chunk_holds_as_many_scores_as_its_memory(shards: list[TableShard], expected: list) -> None:
    # 8 bytes for each of 2 items and, as the items' own vectors are wider than the queries are many, 3 columns.
    sizes, scores = collected(scores_of(shards, chunk_bytes=8 * 3 * 2))
    assert sizes == expected
    torch.testing.assert_close(scores, torch.tensor(COSINES).double(), rtol=0, atol=2.0**-25)
    five = QUERIES[[0, 1, 0, 1, 0]]
    assert collected(scores_of(WHOLE, chunk_bytes=8 * 5 * 2 + 39), five)[0] == [(0, 2), (2, 2), (4, 1)]
    assert collected(scores_of(WHOLE, chunk_bytes=8 * 5 * 2 - 1), five)[0] == [(n, 1) for n in range(5)]
    assert collected(scores_of(WHOLE, chunk_bytes=1))[0] == [(n, 1) for n in range(5)]


def test_nobody_asks_for_nothing() -> None:
    assert list(scores_of(WHOLE).chunks(QUERIES[:0])) == []
    assert scores_of(ROWS).of_items(QUERIES[:0], torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_padding_counts_for_nothing() -> None:
    wide = torch.cat([ITEMS, torch.full((5, 1), math.nan)], dim=1)
    beyond = TableShard(0, 4, torch.full((5, 4), 7.0))
    cut = [TableShard(0, 0, wide[:, :2]), TableShard(0, 2, wide[:, 2:]), beyond]
    for shards in ([TableShard(0, 0, wide), beyond], cut):
        of = scores_of(shards)
        assert of.split_by_columns == (shards is cut)
        torch.testing.assert_close(collected(of)[1], torch.tensor(COSINES).double(), rtol=0, atol=2.0**-25)


@pytest.mark.parametrize(
    "shards",
    [
        [],
        [shard(0, 4)],
        [shard(0, 5), shard(4, 5)],
        [TableShard(1, 0, ITEMS)],
        [shard(0, 5, 0, 2)],
        [shard(0, 3), shard(0, 2)],
    ],
)
def test_tables_that_are_not_covered_once_are_refused(shards: list[TableShard]) -> None:
    with pytest.raises(ValueError, match=r"shards must cover the \[5, 3\] table once"):
        scores_of(shards)


def test_an_empty_table_is_covered_by_nothing() -> None:
    of = scores_of([], num_items=0)
    assert of.unit(CPU) == 1.0
    assert list(of.chunks(QUERIES)) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("item", [0, 4])
def test_a_diverged_table_is_told_of_before_any_score(bad: float, item: int) -> None:
    items = ITEMS.clone()
    items[item, 1] = bad
    for shards in ([TableShard(0, 0, items)], [TableShard(0, 0, items[:2]), TableShard(2, 0, items[2:])]):
        with pytest.raises(UserError, match="the item vectors hold NaN or infinity"):
            scores_of(shards).unit(CPU)


def test_norms_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from unigrf_dist.evaluate import sharded_scores

    calls = []
    whole = sharded_scores.exact_norms
    monkeypatch.setattr(sharded_scores, "exact_norms", lambda *a, **k: calls.append(1) or whole(*a, **k))
    of = scores_of(WHOLE)
    of.of_items(QUERIES, torch.tensor([0, 1]))
    list(of.chunks(QUERIES))
    of.unit(CPU)
    assert calls == [1]


# By layout and rank: rows, or columns of which one rank has two parts, in the middle and at the end.
LAYOUTS = {
    "rows": [[shard(3, 5)], [shard(0, 3)]],
    "all_on_one": [[], WHOLE],
    "columns": [[shard(0, 5, 1, 2)], [shard(0, 5, 2, 3), shard(0, 5, 0, 1)]],
    "some_columns": [[shard(2, 5), shard(0, 2, 0, 1)], [shard(0, 2, 1, 3)]],
}


def on_this_rank(chunk_bytes: int) -> dict[str, Any]:
    ranks, found = Collective(), {}
    for name, layout in LAYOUTS.items():
        for normalize in (True, False):
            of = scores_of(layout[ranks.rank], normalize=normalize, chunk_bytes=chunk_bytes)
            asked = of.of_items(QUERIES, torch.tensor([4, 1])) / ONE**2
            chunks = [(first, scores / ONE**2) for first, scores in of.chunks(QUERIES)]
            found[name, normalize] = of.split_by_columns, of.unit(CPU), asked, chunks
    return found


def test_ranks_with_columns_get_all_items_and_others_their_own() -> None:
    both = run_ranks(2, on_this_rank, 8 * 3 * 2)
    products = QUERIES / ONE @ ITEMS.double().T / 10
    firsts = {
        "rows": [[3], [0, 2]],
        "all_on_one": [[], [0, 2, 4]],
        "columns": [[0, 2, 4]] * 2,
        "some_columns": [[0, 2, 4]] * 2,
    }
    for (name, normalize), _ in both[0].items():
        expected = torch.tensor(COSINES).double() if normalize else products
        for rank, found in enumerate(both):
            split, unit, asked, chunks = found[name, normalize]
            assert split == ("columns" in name)
            assert unit == (1.0 if normalize else 10.0)
            torch.testing.assert_close(asked, expected[[0, 1], [4, 1]], rtol=0, atol=2.0**-25)
            assert [first for first, _ in chunks] == firsts[name][rank]
            for first, scores in chunks:
                here = expected[:, first : first + scores.shape[1]]
                torch.testing.assert_close(scores, here, rtol=0, atol=2.0**-25)


def refused() -> list[str]:
    """What this rank says where the other one's shard is too small, and where the other one diverged."""
    rank, texts = Collective().rank, []
    with pytest.raises(ValueError, match="once") as error:
        scores_of([shard(0, 2)] if rank else [shard(2, 4)])
    texts.append(str(error.value))
    items = ITEMS.clone()
    items[4, 0] = math.nan
    with pytest.raises(UserError, match="diverged"):
        scores_of([TableShard(0, 0, items[:2])] if rank else [TableShard(2, 0, items[2:])]).unit(CPU)
    return texts


def test_all_ranks_refuse_what_one_of_them_holds() -> None:
    first, second = run_ranks(2, refused)
    assert first == second
    assert "[(0, 0, 2, 3), (2, 0, 2, 3)]" in first[0]

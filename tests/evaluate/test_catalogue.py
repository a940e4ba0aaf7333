"""Full-catalogue ranking against counting in plain Python, on one process."""

from __future__ import annotations

import pytest
import torch

from tests.evaluate.catalogues import (
    DIM,
    LAYOUTS,
    NUM_ITEMS,
    Query,
    cut,
    plain_rank,
    plain_scores,
    plain_top_k,
    queries,
    ragged,
    table,
)
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.catalogue import ShardedCatalogue
from unigrf_dist.model.table_shard import TableShard

EIGHT_BYTES = 8


def catalogue(
    items: torch.Tensor, *, layout: str = "table", normalize: bool = True, chunk_bytes: int = 1 << 20
) -> ShardedCatalogue:
    (shards,) = cut(items, layout, 1)
    return ShardedCatalogue(
        shards, num_items=items.shape[0], dim=DIM, normalize=normalize, chunk_bytes=chunk_bytes
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_are_those_of_counting_one_by_one(layout: str, normalize: bool) -> None:
    items, some = table(), queries(40)
    ranks = catalogue(items, layout=layout, normalize=normalize).target_ranks(*ragged(some))
    assert ranks.tolist() == [plain_rank(items, query, normalize=normalize) for query in some]


def test_normalisation_changes_ranks_of_these_items() -> None:
    items, some = table(), queries(40)
    plain = [[plain_rank(items, query, normalize=each) for query in some] for each in (True, False)]
    assert sum(a != b for a, b in zip(*plain, strict=True)) > 20


@pytest.mark.parametrize("rows_per_chunk", [1, 2, 3, 82, 83, 84])
@pytest.mark.parametrize("layout", ["table", "several"])
def test_chunks_of_any_size_give_the_same_ranks_and_lists(layout: str, rows_per_chunk: int) -> None:
    items, some = table(), queries(17)
    chunk_bytes = EIGHT_BYTES * len(some) * rows_per_chunk
    chunked = catalogue(items, layout=layout, chunk_bytes=chunk_bytes)
    assert chunked.target_ranks(*ragged(some)).tolist() == [plain_rank(items, q, normalize=True) for q in some]
    vectors, _, seen, offsets = ragged(some)
    ids, _ = chunked.top_k(vectors, 20, seen, offsets)
    assert ids.tolist() == [plain_top_k(items, query, 20, normalize=True) for query in some]


@pytest.mark.parametrize("normalize", [True, False])
def test_top_k_scores_are_dot_products_or_cosines(normalize: bool) -> None:
    items, some = table(), [Query(query.vector * 30, query.target, query.seen) for query in queries(9)]
    vectors, _, seen, offsets = ragged(some)
    ids, scores = catalogue(items, normalize=normalize).top_k(vectors, 5, seen, offsets)
    for query, row_ids, row_scores in zip(some, ids.tolist(), scores.tolist(), strict=True):
        length = float(query.vector.double().norm()) if normalize else 1.0
        plain = plain_scores(items, query, normalize=normalize)
        # Without normalisation the precision is that of the longest item.
        tolerance = 2**-23 * (1.0 if normalize else float(items.norm(dim=1).max() * query.vector.norm()))
        assert row_scores == pytest.approx([plain[i] / length for i in row_ids], abs=tolerance)


@pytest.mark.parametrize("factor", [2.0**-60, 2.0**-20, 2.0**60])
def test_a_querys_length_changes_no_rank(factor: float) -> None:
    items, some = table(), queries(20)
    vectors, *rest = ragged(some)
    ranks = catalogue(items).target_ranks(vectors * factor, *rest)
    assert ranks.tolist() == [plain_rank(items, query, normalize=True) for query in some]


def test_top_k_fills_up_with_nothing_when_too_few_items_are_left() -> None:
    vectors, _, seen, offsets = ragged([Query(torch.ones(DIM), 0, list(range(NUM_ITEMS - 2)))])
    ids, scores = catalogue(table()).top_k(vectors, 4, seen, offsets)
    assert sorted(ids[0, :2].tolist()) == [NUM_ITEMS - 2, NUM_ITEMS - 1]
    assert ids[0, 2:].tolist() == [-1, -1]
    assert scores[0, 2:].tolist() == [-torch.inf, -torch.inf]


def test_a_model_that_scores_everything_alike_gets_the_middle_rank() -> None:
    items = torch.ones(11, DIM)
    assert catalogue(items).target_ranks(*ragged([Query(torch.ones(DIM), 3, [])])).tolist() == [6]
    zero = Query(torch.zeros(DIM), 3, [0, 1])
    assert catalogue(torch.randn(11, DIM)).target_ranks(*ragged([zero])).tolist() == [5]


def test_every_rank_occurs_when_every_item_is_asked_for() -> None:
    items = torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(3))
    some = [Query(items[0] + 0.1, target, []) for target in range(NUM_ITEMS)]
    ranks = catalogue(items, chunk_bytes=EIGHT_BYTES * NUM_ITEMS * 7).target_ranks(*ragged(some))
    assert sorted(ranks.tolist()) == list(range(1, NUM_ITEMS + 1))


def test_queries_in_low_precision_and_none_at_all_are_legal() -> None:
    items, some = table(), queries(6)
    vectors, *rest = ragged(some)
    halves = [Query(query.vector.bfloat16().float(), query.target, query.seen) for query in some]
    ranks = catalogue(items).target_ranks(vectors.bfloat16(), *rest)
    assert ranks.tolist() == [plain_rank(items, query, normalize=True) for query in halves]
    assert catalogue(items).target_ranks(*ragged([])).tolist() == []


def test_shards_that_do_not_cover_the_table_are_refused() -> None:
    items = table()
    for shards in (
        [TableShard(0, 0, items[:80])],
        [TableShard(0, 0, items), TableShard(0, 0, items[:1])],
        [TableShard(1, 0, items)],
    ):
        with pytest.raises(ValueError, match=r"shards must cover the \[83, 10\] table once"):
            ShardedCatalogue(shards, num_items=NUM_ITEMS, dim=DIM, normalize=True)


@pytest.mark.parametrize("target", [-1, NUM_ITEMS])
def test_targets_outside_the_catalogue_are_refused(target: int) -> None:
    with pytest.raises(ValueError, match=r"target_ids must lie in \[0, 83\)"):
        catalogue(table()).target_ranks(*ragged([Query(torch.ones(DIM), target, [])]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_models_are_told_so(value: float) -> None:
    items, some = table(), queries(3)
    some[1].vector[4] = value
    with pytest.raises(UserError, match="hidden states hold NaN or infinity"):
        catalogue(items).target_ranks(*ragged(some))
    items[7, 2] = value
    with pytest.raises(UserError, match="item vectors hold NaN or infinity"):
        catalogue(items).target_ranks(*ragged(queries(3)))

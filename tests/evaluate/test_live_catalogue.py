"""The catalogue of dynamic ids against the plain one over the live items alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.evaluate.catalogues import (
    DIM,
    NUM_ITEMS,
    Query,
    plain_rank,
    plain_scores,
    plain_top_k,
    queries,
    ragged,
    table,
)
from unigrf_dist.evaluate.catalogue import ShardedCatalogue
from unigrf_dist.evaluate.live_catalogue import LiveCatalogue
from unigrf_dist.evaluate.metrics import NOT_FOUND
from unigrf_dist.model.table_shard import TableShard

CAPACITY = 50


def scattered(live: Tensor) -> LiveCatalogue:
    """The items ``live`` in rows of any order; the rows between hold vectors that beat every item."""
    rows = torch.randperm(CAPACITY, generator=torch.Generator().manual_seed(3))[: live.numel()]
    weight = 1000 * torch.ones(CAPACITY + 1, DIM)
    weight[rows] = table()[live]
    row_of_item = torch.full((NUM_ITEMS,), CAPACITY).index_put((live,), rows)
    shards = [TableShard(first, 0, weight[first : first + 20]) for first in (0, 20, 40)]
    whole = ShardedCatalogue(shards, num_items=CAPACITY + 1, dim=DIM, normalize=True, chunk_bytes=8 * 40 * 7)
    return LiveCatalogue(whole, row_of_item)


def among(live: Tensor, query: Query) -> Query:
    """The query in a catalogue of the live items, numbered from 0."""
    place = {item: number for number, item in enumerate(live.tolist())}
    seen = [place[item] for item in query.seen if item in place]
    return replace(query, target=place.get(query.target, -1), seen=seen)


@pytest.mark.parametrize("number", [CAPACITY, 17, 1])
def test_ranks_and_lists_are_those_of_a_catalogue_of_live_items(number: int) -> None:
    live = torch.randperm(NUM_ITEMS, generator=torch.Generator().manual_seed(number))[:number].sort().values
    some, items = queries(40), table()[live]
    catalogue, inside = scattered(live), [among(live, query) for query in some]
    expected = [NOT_FOUND if query.target < 0 else plain_rank(items, query, normalize=True) for query in inside]
    assert NOT_FOUND in expected
    assert catalogue.target_ranks(*ragged(some)).tolist() == expected
    vectors, _, seen, offsets = ragged(some)
    ids, scores = catalogue.top_k(vectors, 20, seen, offsets)
    for query, found, values in zip(inside, ids.tolist(), scores.tolist(), strict=True):
        best = plain_top_k(items, query, 20, normalize=True)
        listed = found[: len(best)]
        assert found[len(best) :] == [-1] * (20 - len(best))
        # Of equal scores any may stand in the list.
        exact = plain_scores(items, query, normalize=True)
        place = {item: number for number, item in enumerate(live.tolist())}
        assert [exact[place[item]] for item in listed] == pytest.approx([exact[item] for item in best], abs=1e-6)
        assert len(set(listed)) == len(listed)
        assert not {place[item] for item in listed} & set(query.seen)
        length = max(float(query.vector.norm()), 1e-6)
        assert [length * value for value in values[: len(best)]] == pytest.approx(
            [exact[place[item]] for item in listed], abs=1e-5
        )


def test_without_a_live_item_nothing_is_found() -> None:
    catalogue = scattered(torch.zeros(0, dtype=torch.int64))
    vectors, targets, seen, offsets = ragged(queries(5))
    assert catalogue.target_ranks(vectors, targets, seen, offsets).tolist() == [NOT_FOUND] * 5
    assert (catalogue.top_k(vectors, 3, seen, offsets)[0] == -1).all()

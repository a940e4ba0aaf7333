"""The catalogue cut over real gloo ranks: the same ranks and lists, to the last bit, as counted by hand."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from tests.evaluate.catalogues import (
    DIM,
    LAYOUTS,
    NUM_ITEMS,
    cut,
    plain_rank,
    plain_top_k,
    queries,
    ragged,
    table,
)
from tests.spawn import run_ranks
from unigrf_dist.evaluate.catalogue import ShardedCatalogue
from unigrf_dist.ranks.collective import Collective

K = 12
# Queries of each rank; some have none, and in the second batch nobody has.
SHARES = {1: [[23], [0]], 2: [[23, 0], [0, 0], [5, 18]], 4: [[3, 0, 19, 1], [0, 0, 0, 0]]}


def rank_everything(chunk_bytes: int) -> dict[str, list]:
    """This rank's target ranks, list ids and list scores for each layout, over all batches."""
    rank, world_size = Collective().rank, Collective().world_size
    items, results = table(), {}
    for layout in LAYOUTS:
        for normalize in (True, False):
            catalogue = ShardedCatalogue(
                cut(items, layout, world_size)[rank],
                num_items=NUM_ITEMS,
                dim=DIM,
                normalize=normalize,
                chunk_bytes=chunk_bytes,
            )
            found = []
            for share in SHARES[world_size]:
                first = sum(share[:rank])
                vectors, targets, seen, offsets = ragged(queries(23)[first : first + share[rank]])
                ranks = catalogue.target_ranks(vectors, targets, seen, offsets)
                ids, scores = catalogue.top_k(vectors, K, seen, offsets)
                found.append((ranks.tolist(), ids.tolist(), scores.tolist()))
            results[f"{layout}, normalize={normalize}"] = found
    return results


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_layouts_and_ranks_change_nothing(world_size: int) -> None:
    alone = rank_everything(1 << 20)
    items, some = table(), queries(23)
    # 1,500 bytes hold a few items per chunk: every shard takes several, the last of them short.
    by_rank = run_ranks(world_size, rank_everything, 1500)
    for case in alone:
        normalize = case.endswith("True")
        expected = [plain_rank(items, query, normalize=normalize) for query in some]
        lists = [plain_top_k(items, query, K, normalize=normalize) for query in some]
        _, _, scores = alone[f"table, normalize={normalize}"][0]
        for batch, share in enumerate(SHARES[world_size]):
            parts = [result[case][batch] for result in by_rank]
            assert [len(part[0]) for part in parts] == share, case
            asked = sum(share)
            assert [rank for part in parts for rank in part[0]] == expected[:asked], case
            assert [row for part in parts for row in part[1]] == lists[:asked], case
            assert [row for part in parts for row in part[2]] == scores[:asked], case


def gather_uneven() -> list[list]:
    rank = dist.get_rank()
    rows = torch.full((2 * (rank % 2), 3), rank)
    return [part.tolist() for part in Collective().gather_rows(rows)]


def test_rows_are_gathered_by_rank_whatever_their_number() -> None:
    for gathered in run_ranks(3, gather_uneven):
        assert gathered == [[], [[1, 1, 1], [1, 1, 1]], []]

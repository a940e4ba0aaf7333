"""Item tables, ways of cutting them over ranks, and the ranking that a reader can check, in plain Python."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.model.table_shard import TableShard

NUM_ITEMS, DIM = 83, 10  # divide by no number of ranks used here


@dataclass(frozen=True)
class Query:
    """One user's question and its answer."""

    vector: Tensor
    target: int
    seen: list[int]


def table(seed: int = 0) -> Tensor:
    """Items of very different lengths; some are equal, so that scores tie, and one is zero."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(NUM_ITEMS, DIM, generator=generator)
    items *= torch.exp(2 * torch.randn(NUM_ITEMS, 1, generator=generator))
    items[[5, 30, 61, 82]] = items[4].clone()
    items[50:60] = items[49].clone()
    items[12] = 0.0
    return items


def queries(num: int, seed: int = 1) -> list[Query]:
    """Queries whose targets and seen items fall on tied items often; seen items repeat and may be the target."""
    generator = torch.Generator().manual_seed(seed)
    tied = [4, 5, 30, 49, 53, 59, 12]
    drawn = []
    for i in range(num):
        seen = torch.randint(NUM_ITEMS, (i % 9,), generator=generator).tolist()
        target = tied[i % len(tied)] if i % 2 else int(torch.randint(NUM_ITEMS, (1,), generator=generator))
        seen += [seen[0], 50, 50] if seen else []
        seen += [target] if i % 5 == 3 else []
        drawn.append(Query(torch.randn(DIM, generator=generator), target, seen))
    return drawn


def ragged(some: list[Query]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arguments of ``target_ranks``."""
    lengths = torch.tensor([0] + [len(query.seen) for query in some])
    return (
        torch.stack([query.vector for query in some]) if some else torch.zeros(0, DIM),
        torch.tensor([query.target for query in some], dtype=torch.int64),
        torch.tensor([item for query in some for item in query.seen], dtype=torch.int64),
        lengths.cumsum(0),
    )


def plain_scores(items: Tensor, query: Query, *, normalize: bool) -> list[float]:
    """Scores in Python floats, item by item; equal rows get equal scores."""
    vector = query.vector.tolist()
    scores = []
    for item in items.tolist():
        length = max(sum(x * x for x in item) ** 0.5, 1e-6) if normalize else 1.0
        scores.append(sum(q * x for q, x in zip(vector, item, strict=True)) / length)
    return scores


def plain_rank(items: Tensor, query: Query, *, normalize: bool) -> int:
    """Rank by counting, one item after the other."""
    scores = plain_scores(items, query, normalize=normalize)
    others = [s for i, s in enumerate(scores) if i != query.target and i not in query.seen]
    equal = sum(s == scores[query.target] for s in others)
    return 1 + sum(s > scores[query.target] for s in others) + -(-equal // 2)


def plain_top_k(items: Tensor, query: Query, k: int, *, normalize: bool) -> list[int]:
    """Ids by score, then by id."""
    scores = plain_scores(items, query, normalize=normalize)
    left = [i for i in range(len(scores)) if i not in query.seen]
    return sorted(left, key=lambda i: (-scores[i], i))[:k]


def cut(items: Tensor, layout: str, world_size: int) -> list[list[TableShard]]:
    """Shards by rank; cuts are uneven wherever that is possible."""
    rows, columns = items.shape
    by_rank: list[list[TableShard]] = [[] for _ in range(world_size)]
    if layout == "table":
        by_rank[-1] = [TableShard(0, 0, items)]
    elif layout == "row":
        # The last but one rank gets nothing where there are enough of them.
        edges = [min(rows, r * (rows // world_size + 7)) for r in range(world_size)] + [rows]
        for rank in range(world_size):
            first, last = edges[rank], edges[rank + 1]
            by_rank[rank] = [TableShard(first, 0, items[first:last])]
    elif layout == "column":
        edges = [min(columns, r * 3) for r in range(world_size)] + [columns]
        for rank in range(world_size):
            first, last = edges[rank], edges[rank + 1]
            by_rank[rank] = [TableShard(0, first, items[:, first:last])]
    elif layout == "several":
        # Two row shards on a rank, the later one first, and one of them cut by columns over two ranks.
        by_rank[0] = [TableShard(40, 0, items[40:]), TableShard(0, 0, items[:40, :4])]
        rest = TableShard(0, 4, items[:40, 4:])
        by_rank[-1] = [*by_rank[-1], rest] if world_size == 1 else [rest]
    elif layout == "padded":
        # As FBGEMM stores them: columns beyond the table's width, here not even zero.
        wide = torch.cat([items, torch.full((rows, 2), 7.0)], dim=1)
        for rank in range(world_size):
            first, last = rank * rows // world_size, (rank + 1) * rows // world_size
            by_rank[rank] = [TableShard(first, 0, wide[first:last])]
    return by_rank


LAYOUTS = ["table", "row", "column", "several", "padded"]

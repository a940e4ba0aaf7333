"""The sharded tables on real ranks: what is looked up, what moves, and where it lies."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.spawn import run_ranks
from tests.train.small_features import FEATURES, small_features
from tests.train.small_run import global_batch, join, small_config
from unigrf_dist.config.schema import Config

NUM_ITEMS = 83
RATE, STD, WIDTH = 0.5, 0.25, 6  # the width is no multiple of four
IDS = [[3, 82, 3, 0], [3, 41, 7], [9]]
CANDIDATES = [[4, -1], [82, 0]]
SHARDINGS = ["row_wise", "table_wise", "column_wise", "planner"]


def built(config: Config, width: int, features: bool = False) -> Any:
    from unigrf_dist.model.tables import ItemTable

    return ItemTable(
        config.tables,
        num_items=NUM_ITEMS,
        width=width,
        device=torch.device("cpu"),
        seed=3,
        features=small_features(config, NUM_ITEMS) if features else None,
    )


def config_of(**tables: Any) -> Config:
    changes = {f"tables__{name}": value for name, value in tables.items()}
    given = {"tables__optimizer": "sgd", "tables__learning_rate": RATE, "tables__init_std": STD}
    return small_config(**{**given, **changes, **FEATURES})


def whole(table: Any, name: str = "item") -> Tensor:
    """``[rows, width]`` of all ranks; a row that lies on two of them would come out doubled."""
    rows = NUM_ITEMS if name == "item" else table.features.cardinalities[name]
    padded = torch.zeros(rows, -(-table.width // 4) * 4)
    for shard in table.shards(name):
        height, width = shard.weight.shape
        part = padded[shard.row_offset : shard.row_offset + height]
        part[:, shard.column_offset : shard.column_offset + width] += shard.weight
    dist.all_reduce(padded)
    assert not padded[:, table.width :].any()
    return padded[:, : table.width].clone()


def moves(sharding: str, width: int, rate: float) -> tuple[Tensor, Tensor, Tensor, int]:
    """The table before and after a step of SGD; what was looked up; how many values this rank holds."""
    table, rank = built(config_of(sharding=sharding), width), dist.get_rank()
    start, ids = whole(table), torch.tensor(IDS[rank])
    table.begin_step(0, rate)
    vectors, side, of_candidates = table.lookup(ids, join([]))
    assert side is None
    assert of_candidates is None
    (vectors * (rank + 1.0)).sum().backward()
    held = sum(shard.weight.numel() for shard in table.shards())
    return start, whole(table), vectors.detach(), held


@pytest.mark.parametrize(("world_size", "sharding"), [(1, "planner"), *((2, each) for each in SHARDINGS)])
def test_rows_go_where_they_are_asked_for_and_move_by_all_ranks_gradients(world_size: int, sharding: str) -> None:
    width = 8 if sharding == "column_wise" else WIDTH
    results = run_ranks(world_size, moves, sharding, width, 2 * RATE)
    first = results[0][0]
    assert abs(first.std() - STD) < 5 * STD / (2 * NUM_ITEMS * width) ** 0.5
    counts = torch.zeros(NUM_ITEMS)
    for rank in range(world_size):
        for item in IDS[rank]:
            counts[item] += rank + 1
    for rank, (start, end, vectors, _) in enumerate(results):
        assert torch.equal(start, first)
        assert torch.equal(vectors, first[IDS[rank]])
        # TorchRec takes the mean over ranks of the gradients that reach it.
        torch.testing.assert_close(start - end, 2 * RATE * counts[:, None].expand_as(start) / world_size)
    held = [result[3] for result in results]
    stored = NUM_ITEMS * -(-width // 4) * 4
    assert sum(held) == stored
    if sharding == "table_wise":
        assert sorted(held) == [0] * (world_size - 1) + [stored]
    if sharding == "column_wise":
        assert held == [stored // world_size] * world_size
    if sharding == "row_wise":
        assert min(held) > 0


def with_features() -> dict[str, Any]:
    table = built(config_of(), WIDTH, features=True)
    users = global_batch(0, [3, 2])
    batch = join(users)
    names = list(table.features.cardinalities)
    starts = {name: whole(table, name) for name in names}
    generator = torch.Generator().manual_seed(5)
    for name in names:
        for shard in table.shards(name):
            shard.weight[:, :WIDTH] = torch.randn(shard.weight.shape[0], WIDTH, generator=generator)
    candidates = torch.tensor(CANDIDATES)
    rows = {name: whole(table, name) for name in names}
    with torch.no_grad():
        alone = table.lookup(batch.item_ids, batch)
        both = table.lookup(batch.item_ids, batch, candidates)
    lookup = table.features.lookup(batch, candidates)
    expected = lookup.combine({name: rows[name][ids] for name, ids in lookup.ids.items()})
    return {
        "starts": starts,
        "items": whole(table)[batch.item_ids],
        "alone": alone,
        "both": both,
        "expected": expected,
        "events": batch.num_events,
    }


def test_features_start_at_zero_and_come_in_the_same_exchange() -> None:
    (found,) = run_ranks(1, with_features)
    assert len(found["starts"]) > 1
    assert not any(start.any() for start in found["starts"].values())
    events = found["events"]
    items, side, nothing = found["alone"]
    assert nothing is None
    assert torch.equal(items, found["items"])
    torch.testing.assert_close(side, found["expected"][:events])
    items, side, of_candidates = found["both"]
    assert torch.equal(items, found["items"])
    torch.testing.assert_close(side, found["expected"][:events])
    assert of_candidates.shape == (2, 2, WIDTH)
    torch.testing.assert_close(of_candidates.flatten(0, 1), found["expected"][events:])
    assert len({str(row.tolist()) for row in found["expected"]}) > events // 2


def corrected() -> tuple[Tensor, list[Tensor]]:
    """Adam's moves of three rows, each asked for in a step of its own; the number of the step is set."""
    table, ends = built(config_of(optimizer="adam"), WIDTH), []
    start = whole(table)
    for row, number in enumerate([0, 0, 30]):
        table.begin_step(number, RATE)
        table.lookup(torch.tensor([row]), join([]))[0].sum().backward()
        ends.append(whole(table))
    return start, ends


def test_adams_correction_is_that_of_the_step_it_is_told() -> None:
    ((start, ends),) = run_ranks(1, corrected)
    default = config_of(optimizer="adam").tables.betas
    for row, (number, end) in enumerate(zip([0, 0, 30], ends, strict=True)):
        first, second = ((1 - beta) / (1 - beta ** (number + 1)) for beta in default)
        expected = torch.full((WIDTH,), RATE * first / second**0.5)
        torch.testing.assert_close(start[row] - end[row], expected, rtol=1e-4, atol=1e-5)
    for before, after in itertools.pairwise(ends):
        assert (before != after).any(1).sum() == 1

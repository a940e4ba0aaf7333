"""Tables with fewer rows than it takes to give every rank some: trained, and the same as on one rank."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from tests.spawn import run_ranks
from unigrf_dist.config.schema import TableConfig
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.tables import ItemTable


def train_rows(num_items: int, sharding: str) -> tuple[torch.Tensor, int]:
    """Two updates of a table, each followed by a reduction as DeepSpeed's; the whole table, this rank's rows."""
    table = ItemTable(
        TableConfig(sharding=sharding, optimizer="sgd", learning_rate=0.5),
        num_items=num_items,
        width=4,
        device=torch.device("cpu"),
        seed=1,
    )
    # A strided tensor, too, must be read as it is.
    ids = torch.arange(num_items).repeat(3)[dist.get_rank() :: dist.get_world_size()]
    for step in range(2):
        table.begin_step(step, 0.5)
        vectors, _, _ = table.lookup(ids, JaggedBatch.empty())
        (vectors.square().sum() * dist.get_world_size()).backward()
        dist.all_reduce(torch.ones(1))
    whole = torch.zeros(num_items, 4)
    shards = table.shards()
    for shard in shards:
        rows, columns = shard.weight.shape
        whole[shard.row_offset : shard.row_offset + rows, shard.column_offset :][:, :columns] = shard.weight
    dist.all_reduce(whole)
    return whole, sum(len(shard.weight) for shard in shards)


@pytest.mark.parametrize(("num_items", "world_size"), [(1, 2), (2, 3), (5, 4)])
def test_a_small_table_trains_on_any_number_of_ranks(num_items: int, world_size: int) -> None:
    ((alone, _),) = run_ranks(1, train_rows, num_items, "row_wise")
    together = run_ranks(world_size, train_rows, num_items, "row_wise")
    assert sum(rows for _, rows in together) == num_items
    for whole, _ in together:
        torch.testing.assert_close(whole, alone)

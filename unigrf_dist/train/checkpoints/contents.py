"""What a checkpoint holds, as blocks of named matrices: tables, rows of dynamic ids, dense parameters, candidates.

The same blocks are written and read: their values are views of the live tensors where there are such, and buffers
that ``restore`` copies from where there are not.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from unigrf_dist.data.vocabularies import Vocabularies
from unigrf_dist.model.tables import ItemTable
from unigrf_dist.objective.enhancer.store import CandidateStore
from unigrf_dist.train.checkpoints.blocks import Block
from unigrf_dist.train.dense_state import DenseState, parameter_shape


def table_blocks(table: ItemTable) -> list[Block]:
    """This rank's parts of all tables and of their optimizers' state; views."""
    return [
        Block(f"table/{name}", shard.row_offset, shard.column_offset, num_columns, shard.values)
        for name, num_columns, shard in table.state_shards()
        if len(shard.values)
    ]


def id_blocks(table: ItemTable, *, only_own: bool) -> list[Block]:
    """Row, events and last step of every item, where ids are dynamic; views. See ``model.id_map``.

    Args:
        table: the tables; every rank holds the whole map.
        only_own: leave out the items that other ranks write; neighbours are dealt out.
    """
    if table.live is None:
        return []
    ids = table.live.map
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if only_own else (0, 1)
    first, last = (number * table.num_items // world_size for number in (rank, rank + 1))
    columns = {"row": ids.rows, "events": ids.events, "last_step": ids.last_step}
    return [
        Block(f"ids/{name}", first, 0, 1, torch.from_numpy(values[first:last])[:, None])
        for name, values in columns.items()
        if first < last
    ]


def dense_blocks(state: DenseState, *, only_own: bool) -> list[Block]:
    """Dense weights and moments, each as one row of numbers.

    Args:
        state: whole values, which every rank holds.
        only_own: leave out what other ranks write; parameters are dealt out to the ranks in turn.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    return [
        Block(f"dense/{name}/{key}", 0, 0, value.numel(), value.reshape(1, -1))
        for number, (name, values) in enumerate(state.items())
        if not only_own or number % world_size == rank
        for key, value in values.items()
    ]


def candidate_blocks(store: CandidateStore | None) -> list[Block]:
    """The candidates of this rank's users, who are neighbours in the order of the stream."""
    if store is None:
        return []
    values = store.values()
    return [Block("candidates/items", store.first_row, 0, values.shape[1], values)] if len(values) else []


def stored_part(blocks: list[Block], model: dict[str, Any]) -> list[Block]:
    """The parts of ``blocks`` that a checkpoint has values for; views.

    Args:
        blocks: all tables, rows of dynamic ids and dense parameters, which may have more rows than when they were
            saved.
        model: signature of the model that was saved.
    """
    num_items, capacity = model["items"][0], model.get("capacity")
    rows = {"item": num_items if capacity is None else capacity + 1, **model["features"]}
    numbers = {name: math.prod(shape) for name, shape in model["dense"].items()}
    parts = []
    for block in blocks:
        kind, name = block.name.split("/")[:2]
        if kind == "dense":
            parts.append(replace(block, values=block.values[:, : numbers[name]], num_columns=numbers[name]))
            continue
        kept = (num_items if kind == "ids" else rows[name]) - block.first_row
        parts += [replace(block, values=block.values[:kept])] if kept > 0 else []
    return parts


def signature(engine: Any, table: ItemTable, vocabularies: Vocabularies) -> dict[str, Any]:
    """What a checkpoint must have in common with the model that it is loaded into."""
    return {
        "items": [table.num_items, table.width],
        "capacity": None if table.live is None else table.live.map.capacity,
        **vocabularies.signature(table.num_items, table.features.cardinalities),
        "features": table.features.cardinalities,
        "dense": {name: list(parameter_shape(p)) for name, p in engine.module.named_parameters()},
    }

"""What a checkpoint holds, as blocks of named matrices: tables, dense parameters, the enhancer's candidates.

The same blocks are written and read: their values are views of the live tensors where there are such, and buffers
that ``restore`` copies from where there are not.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

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
        blocks: all tables and dense parameters, which may have more rows than when they were saved.
        model: signature of the model that was saved.
    """
    rows = {"item": model["items"][0], **model["features"]}
    numbers = {name: math.prod(shape) for name, shape in model["dense"].items()}
    parts = []
    for block in blocks:
        kind, name, _ = block.name.split("/")
        if kind == "table":
            kept = max(0, min(rows[name] - block.first_row, len(block.values)))
            parts += [replace(block, values=block.values[:kept])] if kept else []
        else:
            parts.append(replace(block, values=block.values[:, : numbers[name]], num_columns=numbers[name]))
    return parts


def signature(engine: Any, table: ItemTable, vocabularies: Vocabularies) -> dict[str, Any]:
    """What a checkpoint must have in common with the model that it is loaded into."""
    return {
        "items": [table.num_items, table.width],
        **vocabularies.signature(table.num_items, table.features.cardinalities),
        "features": table.features.cardinalities,
        "dense": {name: list(parameter_shape(p)) for name, p in engine.module.named_parameters()},
    }

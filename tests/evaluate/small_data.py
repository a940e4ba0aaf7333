"""A data set of a few users on disk, and a model that is a fixed function of what a user did last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from unigrf_dist.data import Dataset, JaggedBatch, open_dataset
from unigrf_dist.evaluate.catalogue import ShardedCatalogue
from unigrf_dist.model.table_shard import TableShard
from unigrf_dist.model.unigrf import SequenceScores
from unigrf_dist.prepare.writer import DatasetWriter

NUM_ITEMS, DIM = 37, 6
BEHAVIOURS = [{"rating": 1.0}, {"rating": 3.0}, {"rating": 5.0, "like": 1.0}, {"rating": 4.0, "like": 0.0}]
TASKS = ["rating >= 4", "like == 1"]
NAN = float("nan")
TASK_LABELS = torch.tensor([[0.0, NAN], [0.0, NAN], [1.0, 1.0], [1.0, 0.0]])

Event = tuple[int, int, int]
"""Item, behaviour, time."""


def drawn_users(num: int, seed: int = 0) -> list[list[Event]]:
    """Users of 1 to 30 events; times repeat between users, items within a user. The last two items are new:
    they occur as test events only, or not at all."""
    generator = np.random.default_rng(seed)
    users = []
    for _ in range(num):
        length = int(generator.integers(1, 31))
        times = np.sort(generator.integers(0, 60, length))
        items = generator.zipf(1.3, length) % (NUM_ITEMS - 2)
        items[-1] = NUM_ITEMS - 1 if length > 25 else items[-1]
        behaviours = generator.integers(0, len(BEHAVIOURS), length)
        users.append(list(zip(items.tolist(), behaviours.tolist(), times.tolist(), strict=True)))
    return users


def write_users(folder: Path, users: list[list[Event]], *, num_items: int = NUM_ITEMS) -> Dataset:
    """A data set of several shards and many row groups."""
    folder.mkdir()
    items, behaviours, times = (np.array([event[i] for user in users for event in user]) for i in range(3))
    with DatasetWriter(
        folder,
        num_items=num_items,
        behaviours=BEHAVIOURS,
        raw_user_type="int64",
        raw_item_type="int64",
        row_group_users=3,
        shard_users=12,
    ) as writer:
        lengths = np.array([len(user) for user in users])
        writer.add(pa.array(np.arange(len(users))), lengths, items, behaviours.astype(np.int16), times)
        writer.finish([pa.array(np.arange(num_items))], source="test", arguments={})
    return open_dataset(folder)


class LastEventModel:
    """Asks with the vector of the last event before the target; its logits depend on that and on the target.

    Args:
        rank, world_size: which rows of the item table this rank holds.
    """

    task_names = TASKS
    task_labels = TASK_LABELS

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        generator = torch.Generator().manual_seed(9)
        self.items = torch.randn(NUM_ITEMS, DIM, generator=generator)
        self.by_behaviour = torch.randn(len(BEHAVIOURS), DIM, generator=generator)
        self.rows = slice(rank * NUM_ITEMS // world_size, (rank + 1) * NUM_ITEMS // world_size)

    def score(self, batch: JaggedBatch) -> SequenceScores:
        last = batch.offsets[1:] - 1
        queries = self.items[batch.item_ids[last - 1]] + self.by_behaviour[batch.behaviours[last - 1]]
        products = queries * self.items[batch.item_ids[last]]
        logits = torch.stack([products[:, 0] - products[:, 1], products[:, 2] + 1], dim=1)
        return SequenceScores(queries, logits, batch.lengths >= 2)

    def live_items(self) -> None:
        return None

    def catalogue(self) -> ShardedCatalogue:
        shard = TableShard(self.rows.start, 0, self.items[self.rows])
        return ShardedCatalogue([shard], num_items=NUM_ITEMS, dim=DIM, normalize=True)

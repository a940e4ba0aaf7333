"""Data sets of a few users on disk, and what the streams should yield for them, worked out event by event."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from unigrf_dist.data import Dataset, JaggedBatch, open_dataset
from unigrf_dist.prepare.writer import DatasetWriter

RATINGS = [{"rating": float(stars)} for stars in range(1, 6)]

Event = tuple[int, int, int]
"""Item, behaviour code, time."""


def distinct_users(lengths: Iterable[int]) -> list[list[Event]]:
    """Users of these lengths; no item comes twice anywhere, so that an item identifies its event."""
    items = itertools.count()
    return [
        [(next(items), (user + position) % 5, 1000 * user + position) for position in range(length)]
        for user, length in enumerate(lengths)
    ]


def write_users(
    folder: Path,
    users: Sequence[Sequence[Event]],
    *,
    num_items: int | None = None,
    row_group_users: int = 4,
    shard_users: int = 12,
    titled: bool = False,
) -> Dataset:
    """Write ``users`` with raw ids 100, 101, … and items with raw ids 10 * item; ``titled`` names even items."""
    folder.mkdir(parents=True)
    events = np.array([event for user in users for event in user]).reshape(-1, 3)
    num_items = num_items or int(events[:, 0].max()) + 1
    with DatasetWriter(
        folder,
        num_items=num_items,
        behaviours=RATINGS,
        raw_user_type="int64",
        raw_item_type="int64",
        row_group_users=row_group_users,
        shard_users=shard_users,
    ) as writer:
        lengths = np.array([len(user) for user in users])
        items, behaviours, times = events.T
        writer.add(pa.array(np.arange(100, 100 + len(users))), lengths, items, behaviours.astype(np.int16), times)
        raw_items = 10 * np.arange(min(num_items, 1000))
        titles = pa.array([None if raw % 20 else f"Film {raw}" for raw in raw_items], pa.string())
        writer.finish([pa.array(raw_items)], source="test", arguments={}, item_titles=titles if titled else None)
    return open_dataset(folder)


def users_of(batch: JaggedBatch) -> list[tuple[int, list[Event]]]:
    """The batch as (user, events)."""
    bounds = batch.offsets.tolist()
    events = list(zip(batch.item_ids.tolist(), batch.behaviours.tolist(), batch.timestamps.tolist(), strict=True))
    return [
        (user, events[start:stop])
        for user, start, stop in zip(batch.user_ids.tolist(), bounds[:-1], bounds[1:], strict=True)
    ]


def training_events_kept(user: Sequence[Event], max_events: int) -> list[Event]:
    """History and one target of the events that are not held out."""
    trained = list(user[:-2]) if len(user) >= 3 else list(user)
    return trained[-(max_events + 1) :]

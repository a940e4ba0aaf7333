"""What the baselines are fitted to: counts per item and per task, from one pass over the training events.

Legend: ``V`` items, ``A`` ranking tasks, ``E`` events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.data import Dataset, JaggedBatch, TrainStream
from unigrf_dist.ranks.collective import Collective

NEVER = torch.iinfo(torch.int64).min
_BATCH_USERS = 1024
# Longer than any sequence: baselines count every training event, not only those in the model's window.
_ALL_EVENTS = 2**40


@dataclass(frozen=True)
class TrainingStatistics:
    """Sums over the training events of all users. They cost ``16 (V + A V)`` bytes on every rank.

    Attributes:
        counts: ``[V]`` int64, events of each item.
        latest: ``[V]`` int64, time in seconds of the item's last event; ``NEVER`` if it has none.
        labelled: ``[V, A]`` int64, events of the item that have a label.
        positive: ``[V, A]`` int64, those of them whose label is 1.
        followed: ``[A, 2, 2]`` int64, events by task, the latest earlier label of the user, and label.
    """

    counts: Tensor
    latest: Tensor
    labelled: Tensor
    positive: Tensor
    followed: Tensor


def training_statistics(
    dataset: Dataset, task_labels: Tensor, *, rank: int, world_size: int
) -> TrainingStatistics:
    """Stream the training events, each rank its share of the users, and sum over ranks; collective.

    Args:
        dataset: data set to read.
        task_labels: ``[num_behaviours, A]``, NaN where a behaviour has no label.
        rank: rank of this process.
        world_size: number of ranks.
    """
    num_tasks = task_labels.shape[1]
    totals = TrainingStatistics(
        counts=dataset.training_counts(),
        latest=torch.full((dataset.num_items,), NEVER),
        labelled=torch.zeros(dataset.num_items, num_tasks, dtype=torch.int64),
        positive=torch.zeros(dataset.num_items, num_tasks, dtype=torch.int64),
        followed=torch.zeros(num_tasks, 2, 2, dtype=torch.int64),
    )
    for batch in training_events(dataset, rank, world_size):
        _add(totals, batch, task_labels)
    ranks = Collective()
    for total in (totals.labelled, totals.positive, totals.followed):
        ranks.sum(total)
    ranks.maximum(totals.latest)
    return totals


def previous_labels(labels: Tensor, offsets: Tensor) -> Tensor:
    """The label a user gave last before each event; missing labels are skipped.

    Args:
        labels: ``[E, A]``, NaN where there is none.
        offsets: ``[B + 1]`` int64, where each user's events begin.

    Returns:
        ``[E, A]``, NaN where the user gave none before.
    """
    num_events = labels.shape[0]
    if num_events == 0:
        return labels
    indices = torch.arange(num_events)[:, None].where(~labels.isnan(), torch.tensor(-1))
    latest = indices.cummax(dim=0).values
    before = torch.cat([torch.full_like(latest[:1], -1), latest[:-1]])
    starts = offsets[:-1].repeat_interleave(offsets.diff())[:, None]
    return labels.gather(0, before.clamp_min(0)).where(before >= starts, torch.nan)


def training_events(dataset: Dataset, rank: int, world_size: int) -> Iterator[JaggedBatch]:
    """All training events of this rank's users; every user is on one rank."""
    stream = TrainStream(
        dataset,
        global_batch_users=_BATCH_USERS * world_size,
        partitions=world_size,
        max_events=_ALL_EVENTS,
        rank=rank,
        world_size=world_size,
        seed=0,
    )
    return stream.epoch(0)


def _add(totals: TrainingStatistics, batch: JaggedBatch, task_labels: Tensor) -> None:
    items = batch.item_ids
    totals.latest.scatter_reduce_(0, items, batch.timestamps, "amax")
    labels = task_labels[batch.behaviours]
    totals.labelled.index_add_(0, items, (~labels.isnan()).long())
    totals.positive.index_add_(0, items, (labels == 1).long())
    earlier = previous_labels(labels, batch.offsets)
    for first in (0, 1):
        for then in (0, 1):
            totals.followed[:, first, then] += ((earlier == first) & (labels == then)).sum(0)

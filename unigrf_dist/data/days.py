"""Days that were appended to a data set: the data set as it was on one, and what that day brought."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.data.dataset import Dataset
from unigrf_dist.data.integrity import verify_file
from unigrf_dist.data.manifest import DayRecord, Manifest
from unigrf_dist.errors import UserError


def as_of(dataset: Dataset, day: int) -> Dataset:
    """The data set as it was when its first ``day`` days had been appended; 0 for its base.

    Counts of single behaviours, times and missing values stay those of the whole.

    Raises:
        UserError: there are fewer days, or later ones can no longer be told apart.
    """
    manifest = dataset.manifest
    if not 0 <= day <= len(manifest.days):
        raise UserError(
            f"{dataset.path}: has {len(manifest.days)} appended day(s), so there is no day {day}; name the data "
            "set that the days were appended to"
        )
    later = manifest.days[day:]
    if any(each.folded for each in later):
        raise UserError(
            f"{dataset.path}: day {day + 1} was folded in by `unigrf compact` and cannot be told apart any more; "
            "train on days before they are compacted, or train anew"
        )
    return replace(dataset, manifest=_without(manifest, day, later))


def only_day(dataset: Dataset, day: int) -> Dataset:
    """What day ``day`` (from 1) brought: users with events of that day, whose sequences tell what is new.

    Raises:
        UserError: see ``as_of``; or the index of the day cannot be read.
    """
    as_of(dataset, day - 1)  # a day that is folded in has no index
    found = as_of(dataset, day)
    record = found.manifest.days[-1].users
    assert record is not None, "a day that is not folded in has an index"
    file = dataset.path / record.file
    try:
        verify_file(file, record)
        users = pq.read_table(file, columns=["user_id"]).column(0).to_numpy()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{file}: cannot be read ({error}); copy the data set again") from error
    return replace(found, known_days=day - 1, only_users=users.astype(np.int64))


def _without(manifest: Manifest, day: int, later: list[DayRecord]) -> Manifest:
    behaviours = len(manifest.behaviours) - sum(each.num_behaviours for each in later)

    def grown(name: str) -> int:
        return int(sum(getattr(each, name) for each in later))

    totals = ("num_users", "num_items", "num_events", "num_training_events", "num_training_only_users")
    features = [
        each.model_copy(
            update={
                "cardinality": each.cardinality
                - sum(one.num_values.get(f"{each.owner}/{each.name}", 0) for one in later)
            }
        )
        for each in manifest.features
    ]
    return manifest.model_copy(
        update={
            **{name: getattr(manifest, name) - grown(name) for name in totals},
            "behaviours": manifest.behaviours[:behaviours],
            "behaviour_counts": manifest.behaviour_counts[:behaviours],
            "features": features,
            "shards": [shard for shard in manifest.shards if shard.day <= day],
            "deltas": [delta for delta in manifest.deltas if delta.day <= day],
            "days": manifest.days[:day],
        }
    )

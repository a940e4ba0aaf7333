"""The side features of a synthetic world: the group of each item and, for most users, the taste."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from unigrf_dist.data.feature_files import ITEM_COLUMN, write_item_codes, write_vocabulary
from unigrf_dist.data.manifest import FeatureRecord, FileRecord, Owner
from unigrf_dist.synthetic.world import IntArray, World

GROUP, TASTE = "group", "taste"
_KNOWN_SHARE = 0.8


def known_tastes(tastes: IntArray, random: np.random.Generator) -> IntArray:
    """``[n]`` codes of the user feature ``taste``: 1 plus the taste of each user, or 0 where it is missing."""
    return np.where(random.random(len(tastes)) < _KNOWN_SHARE, tastes + 1, 0)


def write_features(folder: Path, world: World, *, num_missing: int) -> tuple[list[FeatureRecord], FileRecord]:
    """Write the vocabularies and the codes of the items.

    Args:
        folder: folder of the data set.
        world: world of the items.
        num_missing: users without a value of the feature ``taste``.

    Returns:
        the manifest's records of the features and of the file with the codes of the items.
    """
    groups = np.empty(world.num_items, np.int32)
    groups[world.item_ids] = world.group_of + 1
    codes = pa.record_batch({ITEM_COLUMN: np.arange(world.num_items), GROUP: groups})
    planted: list[tuple[Owner, str, int, int]] = [
        ("item", GROUP, world.num_groups, 0),
        ("user", TASTE, world.num_tastes, num_missing),
    ]
    records = [
        FeatureRecord(
            name=name,
            owner=owner,
            cardinality=count + 1,
            multi_valued=False,
            num_missing=missing,
            vocabulary=write_vocabulary(folder, owner, name, pa.array([f"{name} {n}" for n in range(count)])),
        )
        for owner, name, count, missing in planted
    ]
    return records, write_item_codes(folder, {GROUP: False}, [codes])

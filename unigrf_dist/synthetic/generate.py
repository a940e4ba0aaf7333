"""``unigrf synthesize``: draw a world and its users, and write them as a data set."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from unigrf_dist.data.manifest import PLANTED_FILE
from unigrf_dist.data.split import Split
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.progress import Progress, no_progress
from unigrf_dist.prepare.staging import new_folder
from unigrf_dist.prepare.summary import DatasetSummary
from unigrf_dist.prepare.writer import DatasetWriter
from unigrf_dist.synthetic.activity import MIN_LENGTH, draw_lengths, draw_times
from unigrf_dist.synthetic.features import TASTE, known_tastes, write_features
from unigrf_dist.synthetic.optimum import OptimumTally
from unigrf_dist.synthetic.walk import Walks, walk
from unigrf_dist.synthetic.world import IntArray, World, build_world

_RATINGS = [{"rating": float(stars)} for stars in range(1, 6)]
# Users are drawn in chunks, each with a random stream of its own, so that memory stays bounded.
_CHUNK_USERS = 4096


def synthesize(
    out: Path,
    *,
    num_users: int = 4000,
    num_items: int = 1000,
    mean_length: float = 50.0,
    seed: int = 0,
    num_groups: int | None = None,
    num_tastes: int = 12,
    successor_share: float = 0.25,
    zipf_exponent: float = 1.0,
    row_group_users: int = 256,
    shard_users: int = 65_536,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DatasetSummary:
    """Draw a data set and write it, with ``planted.json`` beside the manifest.

    Time grows with the users, with the square of their length, and with groups times tastes, but not with the
    number of items.

    Args:
        out: folder to write; it appears only when all went well.
        num_users, num_items: numbers of users and of items.
        mean_length: mean events of a user, above 5 and at most a quarter of the items.
        seed: seed of the world and of all users.
        num_groups: number of item groups; None for one per 50 items, but between 4 and 64.
        num_tastes: number of user tastes.
        successor_share: chance that the next item is a successor of the last, in [0, 0.9].
        zipf_exponent: exponent of the popularity inside a group, at least 0.
        row_group_users: users of a row group, the unit in which data is read.
        shard_users: users of a shard, rounded up to whole row groups.
        overwrite: replace ``out`` if it holds something.
        progress: called as the work goes on.

    Raises:
        UserError: an argument is out of range, or ``out`` cannot be written.
    """
    groups = num_groups if num_groups is not None else min(max(num_items // 50, 4), 64)
    _check(num_users, num_items, mean_length, groups, num_tastes)
    _check_shares(successor_share, zipf_exponent)
    begun, out, report = time.perf_counter(), Path(out), progress or no_progress
    world = build_world(
        num_items=num_items,
        num_groups=groups,
        num_tastes=num_tastes,
        zipf_exponent=zipf_exponent,
        successor_share=successor_share,
        random=np.random.default_rng([seed, 0]),
    )
    tallies: dict[Split, OptimumTally] = {"validation": OptimumTally(), "test": OptimumTally()}
    with new_folder(out, overwrite=overwrite) as folder:
        with DatasetWriter(
            folder,
            num_items=num_items,
            behaviours=_RATINGS,
            raw_user_type="int64",
            raw_item_type="int64",
            row_group_users=row_group_users,
            shard_users=shard_users,
            user_features=[TASTE],
        ) as writer:
            num_missing = 0
            for first in range(0, num_users, _CHUNK_USERS):
                random = np.random.default_rng([seed, 1, first])
                lengths = draw_lengths(min(_CHUNK_USERS, num_users - first), num_items, mean_length, random)
                walks = walk(world, lengths, tallies, random)
                tastes = known_tastes(walks.tastes, np.random.default_rng([seed, 2, first]))
                _write_users(writer, world, walks, tastes, random)
                num_missing += int((tastes == 0).sum())
                report("walk", writer.counts.users / num_users)
            features, item_codes = write_features(folder, world, num_missing=num_missing)
            manifest = writer.finish(
                [pa.array(np.arange(1, num_items + 1))],
                source="synthetic",
                arguments={
                    "num_users": num_users,
                    "num_items": num_items,
                    "mean_length": mean_length,
                    "seed": seed,
                    "num_groups": groups,
                    "num_tastes": num_tastes,
                    "successor_share": successor_share,
                    "zipf_exponent": zipf_exponent,
                },
                features=features,
                item_features=item_codes,
            )
        _write_optimum(folder, tallies)
    return DatasetSummary(out, manifest, time.perf_counter() - begun)


def _check(num_users: int, num_items: int, mean_length: float, groups: int, num_tastes: int) -> None:
    for name, value in (("num_users", num_users), ("num_groups", groups), ("num_tastes", num_tastes)):
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    if not MIN_LENGTH < mean_length < np.inf:
        raise UserError(f"mean_length is {mean_length:g}; it must be a number above {MIN_LENGTH}")
    if num_items < 4 * mean_length or num_items < groups:
        raise UserError(
            f"num_items is {num_items}; it must be at least 4 times mean_length, as no user sees an item twice, "
            f"and at least num_groups: {max(int(np.ceil(4 * mean_length)), groups)} here"
        )


def _check_shares(successor_share: float, zipf_exponent: float) -> None:
    if not 0 <= successor_share <= 0.9:
        raise UserError(f"successor_share is {successor_share:g}; it must be in [0, 0.9]")
    if not zipf_exponent >= 0:
        raise UserError(f"zipf_exponent is {zipf_exponent:g}; it must be at least 0")


def _write_users(
    writer: DatasetWriter, world: World, walks: Walks, tastes: IntArray, random: np.random.Generator
) -> None:
    """Append a chunk of users in random order. ``tastes`` are the codes of the user feature."""
    num_users, longest = walks.items.shape
    times = draw_times(num_users, longest, random)
    order = random.permutation(num_users)
    is_event = (np.arange(longest) < walks.lengths[:, None])[order]
    first = writer.counts.users + 1
    writer.add(
        pa.array(np.arange(first, first + num_users)),
        walks.lengths[order],
        world.item_ids[walks.items[order][is_event]],
        walks.ratings[order][is_event],
        times[order][is_event],
        [pa.array(tastes[order], pa.int32())],
    )


def _write_optimum(folder: Path, tallies: dict[Split, OptimumTally]) -> None:
    metrics = {split: tally.metrics() for split, tally in tallies.items()}
    (folder / PLANTED_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")

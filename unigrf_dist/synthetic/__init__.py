"""Synthetic interactions with a planted structure, for which the best possible metrics are known.

**The world.** ``I`` items lie in ``G`` groups of equal size; ``K`` tastes are equally likely. Written
``N(s)`` for an independent normal draw of mean 0 and spread ``s``:

* ``chance(r | g)``: popularity of the item of rank ``r`` in its group, proportional to ``r ** -zipf_exponent``;
* ``visit[k, g] = N(1)`` and ``like[k, g] = 0.6 visit[k, g] + 0.8 N(1)``: tastes like what they visit, mostly;
* ``P(g' | g, k)`` proportional to ``exp(2.0 visit[k, g'] + between[g, g'])``, ``between = N(1.0)``: the next
  group depends on the taste and on the group of the last item (``between`` is 0 for the first event);
* every item has three successors, with chances .6, .3, .1: three permutations of all items;
* ``quality[i] = N(0.4)``.

**A user** has one taste ``k`` all along. The next item is a successor of the last one with chance
``successor_share``, otherwise a group is drawn from ``P(. | g, k)`` and an item from its popularities. If the
user has met the item before, the whole draw is repeated; so no user meets an item twice, and the next item is
distributed as said, given that it is new. The rating is 1 plus the number of thresholds -2.8, -1.6, 0.0, 1.8 that
``1.4 like[k, g] + quality[i]`` plus standard logistic noise exceeds. Lengths are 5 plus a gamma variable of
shape 1.5, cut at 8 times the mean and at a quarter of the items. Events come in sessions of 8 on average, 90 s
apart inside a session, days apart between sessions; times tell nothing about items and ratings.

**Side features.** The item feature ``group`` is the item's group; the user feature ``taste`` is the user's taste,
known for four users of five.

**The optimum.** Who knows the world but not the tastes sees, after each event, how likely each taste is (Bayes'
rule over ``K`` tastes; both item and rating tell), and hence the chance of every item to be next and of every
rating of a given item. No ranking of the unseen items has a better expected hit rate, NDCG or reciprocal rank
than that by these chances, and no probability a better expected log loss. ``planted.json`` holds what this
observer scores on the held-out events of exactly the users that were written: ``{"validation" | "test":
{"retrieval": {"hr@1", "hr@10", "hr@50", "hr@200", "ndcg@10", "ndcg@50", "ndcg@200", "mrr"}, "ranking":
{"rating >= 4": {"auc", "log_loss"}}}}``, under the protocol of the evaluation: the whole catalogue without all
items met before; for the test event the validation event belongs to the history. A model that is shown the user
feature ``taste`` knows more than this observer, and may do better.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from unigrf_dist.data.split import Split
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.progress import Progress, no_progress
from unigrf_dist.prepare.staging import new_folder
from unigrf_dist.prepare.summary import DatasetSummary
from unigrf_dist.prepare.writer import DatasetWriter
from unigrf_dist.synthetic.features import TASTE, told_tastes, write_features
from unigrf_dist.synthetic.optimum import OptimumTally
from unigrf_dist.synthetic.walk import Walks, walk
from unigrf_dist.synthetic.world import IntArray, World, build_world

PLANTED_FILE = "planted.json"
RATINGS = [{"rating": float(stars)} for stars in range(1, 6)]
# Users are drawn by chunks of this many, each with a random stream of its own: memory stays bounded.
_CHUNK_USERS = 4096
_MIN_LENGTH = 5
_LENGTH_SHAPE = 1.5
_START, _START_SPREAD_SECONDS = 1_577_836_800, 365 * 86_400  # in the year 2020
_SESSION_EVENTS, _GAP_SECONDS, _PAUSE_SECONDS = 8, 90.0, 2.5 * 86_400


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

    Time grows with users, with the square of their length, and with groups times tastes, but not with the
    number of items.

    Args:
        out: folder to write; it appears only when all went well.
        num_users, num_items: sizes.
        mean_length: of the users' histories, at least 6 and at most a quarter of the items.
        seed: of all draws.
        num_groups: of items; one per 50 items, between 4 and 64, if left out.
        num_tastes: of users.
        successor_share: chance that the next item is a successor of the last.
        zipf_exponent: of the popularity inside a group.
        row_group_users: users of a row group, the smallest piece that ranks share.
        shard_users: users of a file.
        overwrite: replace ``out`` if it holds something.
        progress: called with what is being done and the share of it that is done, in [0, 1].

    Raises:
        UserError: a size is impossible, or ``out`` cannot be written.
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
            behaviours=RATINGS,
            raw_user_type="int64",
            raw_item_type="int64",
            row_group_users=row_group_users,
            shard_users=shard_users,
            user_features=[TASTE],
        ) as writer:
            num_told = 0
            for first in range(0, num_users, _CHUNK_USERS):
                random = np.random.default_rng([seed, 1, first])
                lengths = _lengths(min(_CHUNK_USERS, num_users - first), num_items, mean_length, random)
                walks = walk(world, lengths, tallies, random)
                told = told_tastes(walks.tastes, np.random.default_rng([seed, 2, first]))
                _write(writer, world, walks, told, random)
                num_told += int((told > 0).sum())
                report("walk", writer.counts.users / num_users)
            features, item_codes = write_features(folder, world, num_untold_users=num_users - num_told)
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
        planted = {split: tally.metrics() for split, tally in tallies.items()}
        (folder / PLANTED_FILE).write_text(json.dumps(planted, indent=1) + "\n", encoding="utf-8")
    return DatasetSummary(out, manifest, time.perf_counter() - begun)


def _check(num_users: int, num_items: int, mean_length: float, groups: int, num_tastes: int) -> None:
    for name, value in (("num_users", num_users), ("num_groups", groups), ("num_tastes", num_tastes)):
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    if not _MIN_LENGTH < mean_length < np.inf:
        raise UserError(f"mean_length is {mean_length:g}; it must be a number above {_MIN_LENGTH}")
    if num_items < 4 * mean_length or num_items < groups:
        raise UserError(
            f"num_items is {num_items}; it must be at least 4 times mean_length, as no user meets an item twice, "
            f"and at least num_groups: {max(int(np.ceil(4 * mean_length)), groups)} here"
        )


def _check_shares(successor_share: float, zipf_exponent: float) -> None:
    if not 0 <= successor_share <= 0.9:
        raise UserError(f"successor_share is {successor_share:g}; it must be in [0, 0.9]")
    if not zipf_exponent >= 0:
        raise UserError(f"zipf_exponent is {zipf_exponent:g}; it must be at least 0")


def _lengths(num_users: int, num_items: int, mean: float, random: np.random.Generator) -> IntArray:
    """``[num_users]`` lengths of histories, descending."""
    beyond = random.gamma(_LENGTH_SHAPE, (mean - _MIN_LENGTH) / _LENGTH_SHAPE, size=num_users)
    longest = min(num_items // 4, int(8 * mean))
    return -np.sort(-np.minimum(_MIN_LENGTH + np.rint(beyond).astype(np.int64), longest))


def _write(
    writer: DatasetWriter, world: World, walks: Walks, tastes: IntArray, random: np.random.Generator
) -> None:
    """Append a chunk of users in random order."""
    times = _times(*walks.items.shape, random=random)
    order = random.permutation(len(walks.lengths))
    is_event = (np.arange(walks.items.shape[1]) < walks.lengths[:, None])[order]
    first = writer.counts.users + 1
    writer.add(
        pa.array(np.arange(first, first + len(order))),
        walks.lengths[order],
        world.item_ids[walks.items[order][is_event]],
        walks.ratings[order][is_event],
        times[order][is_event],
        [pa.array(tastes[order], pa.int32())],
    )


def _times(num_users: int, num_events: int, *, random: np.random.Generator) -> IntArray:
    """``[num_users, num_events]`` seconds, in sessions."""
    shape = (num_users, num_events)
    gaps = random.exponential(_GAP_SECONDS, size=shape)
    pauses = random.random(shape) < 1 / _SESSION_EVENTS
    gaps[pauses] += random.exponential(_PAUSE_SECONDS, size=int(pauses.sum()))
    gaps[:, 0] = _START + random.random(num_users) * _START_SPREAD_SECONDS
    return np.floor(np.cumsum(gaps, axis=1)).astype(np.int64)

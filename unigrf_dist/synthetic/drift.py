"""``unigrf synthesize --days``: raw files of a base and of days after it, in a world that changes from day to day.

The world is that of the package. From one day to the next, with ``drift`` between 0 and 1:

* the visits of every taste to every group take a step of a random walk, ``2.0 drift N(1)`` in the logits;
* a share ``drift`` of the items get new successors.

A hundredth of the items appear on each day, and a hundredth of the users. A user is there on three days of ten,
with three events on average, and meets none of its last 64 items. The base is the 30 days before the first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.progress import Progress, no_progress
from unigrf_dist.prepare.staging import new_folder
from unigrf_dist.synthetic.activity import draw_lengths
from unigrf_dist.synthetic.observer import have_seen
from unigrf_dist.synthetic.walk import draw
from unigrf_dist.synthetic.world import IntArray, World, build_world, softmax

_DAY, _START = 86_400, 1_577_836_800  # 1 January 2020
_BASE_DAYS = 30
_VISIT_STEP = 2.0
_NEW_SHARE = 0.01
_ACTIVE_SHARE, _FURTHER_EVENTS = 0.3, 2.0
_REMEMBERED = 64
_CHUNK_USERS = 4096
_COLUMNS = ("user_id", "item_id", "timestamp", "rating")


def synthesize_days(
    out: Path,
    *,
    days: int,
    drift: float,
    num_users: int = 4000,
    num_items: int = 1000,
    mean_length: float = 50.0,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write ``base.parquet``, ``day-01.parquet``, … for ``unigrf prepare parquet``, and ``--append``.

    Args:
        out: folder to write; it appears only when all went well.
        days: days after the base, at least 1.
        drift: how much the world changes from day to day, in [0, 1].
        num_users, num_items: numbers of users and of items on the last day.
        mean_length: mean events of a user in the base.
        seed: seed of the world and of all users.
        overwrite: replace ``out`` if it holds something.
        progress: called as the work goes on.

    Returns:
        events of every file, by its name.

    Raises:
        UserError: an argument is out of range, or ``out`` cannot be written.
    """
    if days < 1 or not 0 <= drift <= 1:
        raise UserError(f"days is {days} and drift is {drift:g}; days must be at least 1 and drift in [0, 1]")
    if num_items < max(4 * mean_length, 4 * _REMEMBERED):
        raise UserError(
            f"num_items is {num_items}; it must be at least {int(max(4 * mean_length, 4 * _REMEMBERED))} here, as "
            f"no user sees one of its last {_REMEMBERED} items again"
        )
    report, names = (
        progress or no_progress,
        ["base.parquet", *(f"day-{n:02d}.parquet" for n in range(1, days + 1))],
    )
    worlds = _worlds(days, drift, num_items, seed)
    appears = _appearances(num_items, days, np.random.default_rng([seed, 4]))
    joins = _appearances(num_users, days, np.random.default_rng([seed, 5]))
    counts = dict.fromkeys(names, 0)
    with new_folder(Path(out), overwrite=overwrite) as folder, ExitStack() as stack:
        schema = pa.schema([(name, pa.int64()) for name in _COLUMNS])
        writers = [stack.enter_context(pq.ParquetWriter(folder / name, schema)) for name in names]
        for first in range(0, num_users, _CHUNK_USERS):
            random = np.random.default_rng([seed, 6, first])
            users = np.arange(first, min(first + _CHUNK_USERS, num_users))
            crowd = _Crowd.of(len(users), worlds[0], random)
            for day, world in enumerate(worlds):
                events = _events_of_day(crowd, day, world, joins[users], appears <= day, mean_length, random)
                events[:, 0] += first + 1
                writers[day].write_table(pa.table(list(events.T), schema=schema))
                counts[names[day]] += len(events)
            report("walk", (users[-1] + 1) / num_users)
    return counts


@dataclass
class _Crowd:
    """Users as they go through the days.

    Attributes:
        tastes: ``[n]`` taste of each.
        recent: ``[n, 64]`` their last items, the latest at the end; -1 where there are fewer.
    """

    tastes: IntArray
    recent: IntArray

    @staticmethod
    def of(num_users: int, world: World, random: np.random.Generator) -> _Crowd:
        tastes = random.choice(world.num_tastes, size=num_users, p=world.taste_chances)
        return _Crowd(tastes, np.full((num_users, _REMEMBERED), -1))

    def step(
        self, users: IntArray, world: World, is_there: np.ndarray, random: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """The next event of ``users`` ``[m]``: items in the world's numbering, and ratings from 1."""
        items = np.empty(len(users), np.int64)
        begun = self.recent[users, -1] >= 0
        for some, seen in ((begun, _REMEMBERED), (~begun, 0)):
            redo = np.flatnonzero(some)
            while len(redo):
                of_users = users[redo]
                history = self.recent[of_users]
                items[redo] = draw(world, self.tastes[of_users], history[:, :seen], random)
                taken = have_seen(history, items[redo, None])[:, 0] | ~is_there[items[redo]]
                redo = redo[taken]
        self.recent[users] = np.concatenate([self.recent[users, 1:], items[:, None]], axis=1)
        utility = world.affinity[self.tastes[users], world.group_of[items]] + world.quality[items]
        return items, 1 + world.rating(utility, random.logistic(size=len(users))).astype(np.int64)


def _events_of_day(
    crowd: _Crowd,
    day: int,
    world: World,
    joins: IntArray,
    is_there: np.ndarray,
    mean_length: float,
    random: np.random.Generator,
) -> IntArray:
    """``[E, 4]`` user (from 0), raw item, time and rating of the events of a day; of the base if it is day 0."""
    num_users, length = len(joins), _BASE_DAYS if day == 0 else 1
    if day == 0:
        lengths = random.permutation(draw_lengths(num_users, world.num_items, mean_length, random))
    else:
        is_active = (random.random(num_users) < _ACTIVE_SHARE) | (joins == day)
        lengths = np.where(is_active, 1 + random.poisson(_FURTHER_EVENTS, num_users), 0)
    lengths = np.where(joins <= day, lengths, 0)
    parts = []
    for t in range(int(lengths.max(initial=0))):
        users = np.flatnonzero(lengths > t)
        items, ratings = crowd.step(users, world, is_there, random)
        parts.append(np.stack([users, 1 + world.item_ids[items], np.full_like(users, t), ratings], axis=1))
    events = np.concatenate(parts) if parts else np.zeros((0, 4), np.int64)
    events = events[np.lexsort((events[:, 2], events[:, 0]))]
    # Times of each user in order; the day is the same for all.
    times = random.random(len(events)) * length * _DAY
    times = times[np.lexsort((times, events[:, 0]))]
    events[:, 2] = _START + (day - length) * _DAY + times.astype(np.int64)
    return events


def _worlds(days: int, drift: float, num_items: int, seed: int) -> list[World]:
    """The world of the base and of each day."""
    world = build_world(
        num_items=num_items,
        num_groups=min(max(num_items // 50, 4), 64),
        num_tastes=12,
        zipf_exponent=1.0,
        successor_share=0.25,
        random=np.random.default_rng([seed, 0]),
    )
    return [world, *_changes(world, days, drift, seed)]


def _changes(world: World, days: int, drift: float, seed: int) -> Iterator[World]:
    logits, successors = np.log(world.group_chances), world.successors.copy()
    for day in range(1, days + 1):
        random = np.random.default_rng([seed, 3, day])
        logits = logits + drift * _VISIT_STEP * random.standard_normal(logits.shape[1:])
        changed = np.flatnonzero(random.random(world.num_items) < drift)
        successors = successors.copy()
        successors[changed] = random.integers(world.num_items, size=(len(changed), successors.shape[1]))
        yield replace(world, group_chances=softmax(logits), successors=successors)


def _appearances(count: int, days: int, random: np.random.Generator) -> IntArray:
    """``[count]`` day on which each appears; 0 for most, whom the base has."""
    found = np.zeros(count, np.int64)
    later = random.permutation(count)[: min(int(_NEW_SHARE * count) * days, count // 2)]
    found[later] = 1 + np.arange(len(later)) % days
    return found

"""What a day brought, and the data set as it was before: worked out from the events, day by day."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.data.small_sets import users_of
from tests.prepare.test_append import COLUMNS, SMALL, rows_of_days, write_days
from unigrf_dist.data import Dataset, EvaluationStream, TrainStream, open_dataset
from unigrf_dist.data.days import as_of, only_day
from unigrf_dist.data.seen_rule import share_of_repeats
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.append import append
from unigrf_dist.prepare.compact import compact
from unigrf_dist.prepare.pipeline import prepare

Rows = list[tuple[int, ...]]
MAX_EVENTS = 12


def on_time(days: list[Rows]) -> list[Rows]:
    """The same rows without those that come days late."""
    return [[row for row in rows if row[3] // 86_400 == day] for day, rows in enumerate(days)]


@pytest.fixture(scope="module")
def days() -> list[Rows]:
    return on_time(rows_of_days(new_users=True))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, days: list[Rows]) -> Dataset:
    folder = tmp_path_factory.mktemp("grown")
    raws = write_days(folder / "raw", days)
    prepare("csv", raw=raws[0], out=folder / "set", columns=COLUMNS, **SMALL)
    for raw in raws[1:4]:
        append("csv", raw=raw, into=folder / "set", shard_users=16)
    return open_dataset(folder / "set")


def events_of(days: list[Rows]) -> dict[int, list[int]]:
    """Times of every user's events, by raw id; a stable sort, as the data set promises."""
    found: dict[int, list[tuple[int, ...]]] = {}
    for rows in days:
        for row in rows:
            found.setdefault(row[0], []).append(row)
    return {user: [row[3] for row in sorted(rows, key=lambda row: row[3])] for user, rows in found.items()}


def trained(count: int) -> int:
    return count - 2 if count >= 3 else count


def test_the_data_set_as_it_was_is_that_of_fewer_days(grown: Dataset, days: list[Rows], tmp_path: Path) -> None:
    raws = write_days(tmp_path / "raw", days)
    prepare("csv", raw=raws[0], out=tmp_path / "set", columns=COLUMNS, **SMALL)
    append("csv", raw=raws[1], into=tmp_path / "set", shard_users=16)
    before, now = as_of(grown, 1), open_dataset(tmp_path / "set")
    changing = {"behaviour_counts", "first_timestamp", "last_timestamp", "num_unsorted_users", "warnings"}
    for name in set(type(now.manifest).model_fields) - changing:
        assert getattr(before.manifest, name) == getattr(now.manifest, name), name
    assert before.catalogue_fingerprint() == now.catalogue_fingerprint()
    assert as_of(grown, 3) == dataclasses.replace(grown, manifest=grown.manifest)
    with pytest.raises(UserError, match="so there is no day 4"):
        as_of(grown, 4)


def test_a_day_is_trained_on_what_it_brought_and_its_users_alone(grown: Dataset, days: list[Rows]) -> None:
    before, after = events_of(days[:2]), events_of(days[:3])
    touched = {row[0] for row in days[2]}
    day = only_day(grown, 2)
    found: dict[int, tuple[list[int], int]] = {}
    ids = []
    for rank in range(2):
        stream = TrainStream(
            day, global_batch_users=7, max_events=MAX_EVENTS, rank=rank, world_size=2, seed=1, partitions=4
        )
        ids += stream.user_ids.tolist()
        for batch in stream.epoch(0):
            if not batch.num_users:
                continue
            assert batch.context_lengths is not None
            for (user, events), context in zip(users_of(batch), batch.context_lengths.tolist(), strict=True):
                assert user not in found
                found[user] = ([time for _, _, time in events], context)
    assert sorted(ids) == sorted(found)
    # Raw ids are dense ids here: all base users come in it, new ones behind in their order.
    assert set(found) == touched
    newly = 0
    for user, (times, context) in found.items():
        last, known = trained(len(after[user])), trained(len(before.get(user, [])))
        first = max(last - MAX_EVENTS - 1, 0)
        assert times == after[user][first:last]
        assert context == min(max(known - first, 0), len(times))
        newly += len(times) - context
    assert newly > 50


def test_a_day_is_evaluated_on_the_first_event_of_each_of_its_users(grown: Dataset, days: list[Rows]) -> None:
    before, after = events_of(days[:2]), events_of(days[:3])
    stream = EvaluationStream(
        only_day(grown, 2), split="day", batch_users=9, max_events=MAX_EVENTS, rank=0, world_size=1
    )
    found = dict(pair for each in stream for pair in users_of(each.batch))
    for user in {row[0] for row in days[2]}:
        target = max(len(before.get(user, [])), 1)
        if target == len(after[user]):
            assert user not in found
        else:
            expected = after[user][max(target - MAX_EVENTS, 0) : target + 1]
            assert [time for _, _, time in found.pop(user)] == expected
    assert not found


def test_days_that_were_folded_in_cannot_be_told_apart(grown: Dataset, days: list[Rows], tmp_path: Path) -> None:
    raws = write_days(tmp_path / "raw", days)
    prepare("csv", raw=raws[0], out=tmp_path / "set", columns=COLUMNS, **SMALL)
    append("csv", raw=raws[1], into=tmp_path / "set")
    compact(tmp_path / "set")
    append("csv", raw=raws[2], into=tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    assert np.array_equal(only_day(dataset, 2).only_users, only_day(grown, 2).only_users)
    for refused in (lambda: as_of(dataset, 0), lambda: only_day(dataset, 1)):
        with pytest.raises(UserError, match="day 1 was folded in by `unigrf compact`"):
            refused()


def test_whether_items_come_again_is_not_changed_by_a_day(grown: Dataset) -> None:
    base = as_of(grown, 0)
    assert share_of_repeats(grown.manifest) == share_of_repeats(base.manifest) > 0.01

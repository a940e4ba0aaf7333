"""The map of dynamic ids against its rules, written once more with dictionaries and plain loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigrf_dist.config.schema import IdsConfig
from unigrf_dist.model.id_map import IdMap, _smallest

NUM_IDS = 12


class PlainMap:
    """``IdMap`` item by item."""

    def __init__(self, capacity: int, admit_after: int, evict: str, ttl_steps: int | None) -> None:
        self.capacity, self.admit_after, self.evict, self.ttl_steps = capacity, admit_after, evict, ttl_steps
        self.row: dict[int, int] = {}
        self.events: Counter[int] = Counter()
        self.last: dict[int, int] = {}
        if admit_after == 0:
            self.row = {item: item for item in range(min(capacity, NUM_IDS))}

    def observe(self, items: list[int], step: int) -> None:
        self.events.update(items)
        self.last.update(dict.fromkeys(items, step))
        if self.ttl_steps is not None:
            for item in [each for each in self.row if step - self.last.get(each, -1) > self.ttl_steps]:
                self.forget(item)
        waiting = [item for item in set(items) if item not in self.row and self.events[item] >= self.admit_after]
        for item in sorted(waiting, key=lambda each: (-self.events[each], each)):
            free = sorted(set(range(self.capacity)) - set(self.row.values()))
            if free:
                self.row[item] = free[0]
                continue
            idle = [each for each in self.row if each not in items and self.last.get(each, -1) != step]
            if not idle or self.evict == "ttl":
                continue
            age = {each: (self.last.get(each, -1), self.events[each]) for each in idle}
            if self.evict == "lfu":
                age = {each: (events, last) for each, (last, events) in age.items()}
            weakest = min(idle, key=lambda each: (age[each], each))
            if self.evict == "lfu" and self.events[item] <= self.events[weakest]:
                continue
            row = self.row[weakest]
            self.forget(weakest)
            self.row[item] = row

    def forget(self, item: int) -> None:
        del self.row[item]
        self.events.pop(item, None)
        self.last.pop(item, None)


def observe(ids: IdMap, items: list[int], step: int) -> Any:
    distinct, counts = np.unique(np.array(items, np.int64), return_counts=True)
    return ids.observe(distinct, counts, step)


batches = st.lists(st.lists(st.integers(0, NUM_IDS - 1), max_size=9), max_size=25)
options = st.builds(
    lambda capacity, admit_after, evict, ttl: {
        "capacity": capacity,
        "admit_after": admit_after,
        "evict": evict,
        "ttl_steps": ttl if evict == "ttl" else None,
    },
    st.integers(1, NUM_IDS + 2),
    st.integers(0, 4),
    st.sampled_from(["lfu", "lru", "ttl"]),
    st.integers(1, 4),
)


@settings(max_examples=150, deadline=None)
@given(options, batches)
def test_rows_are_those_of_the_rules_item_by_item(chosen: dict, steps: list[list[int]]) -> None:
    ids, plain = IdMap(IdsConfig(kind="dynamic", **chosen), NUM_IDS), PlainMap(**chosen)
    assert {item: int(ids.rows[item]) for item in ids.live_ids().tolist()} == plain.row
    for step, items in enumerate(steps):
        before = dict(plain.row)
        plain.observe(items, step)
        change = observe(ids, items, step)
        rows = {item: int(ids.rows[item]) for item in ids.live_ids().tolist()}
        assert rows == plain.row
        assert len(set(rows.values())) == len(rows), "two live items share a row"
        assert dict(zip(change.ids.tolist(), change.rows.tolist(), strict=True)) == {
            item: row for item, row in rows.items() if before.get(item) != row
        }
        assert sorted(change.evicted.tolist()) == sorted(before.keys() - rows.keys())
        assert (ids.rows[[item not in rows for item in range(NUM_IDS)]] == ids.unknown_row).all()


@settings(max_examples=50, deadline=None)
@given(options, batches, batches)
def test_a_map_that_is_read_back_goes_on_as_before(chosen: dict, first: list, then: list) -> None:
    config = IdsConfig(kind="dynamic", **chosen)
    ids, read = IdMap(config, NUM_IDS), IdMap(config, NUM_IDS)
    for step, items in enumerate(first):
        observe(ids, items, step)
    for name in ("rows", "events", "last_step"):
        getattr(read, name)[:] = getattr(ids, name)
    read.reload()
    for step, items in enumerate(then, start=len(first)):
        ours, theirs = observe(ids, items, step), observe(read, items, step)
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12), st.integers(0, 12))
def test_the_smallest_are_those_of_a_full_sort(pairs: list[tuple[int, int]], number: int) -> None:
    number = min(number, len(pairs))
    keys = [np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1)] + [np.arange(len(pairs))]
    expected = sorted(range(len(pairs)), key=lambda place: (pairs[place], place))[:number]
    assert _smallest(keys, number).tolist() == expected


@pytest.mark.parametrize("evict", ["lfu", "lru"])
def test_what_was_evicted_comes_back_as_a_new_item(evict: str) -> None:
    ids = IdMap(IdsConfig(kind="dynamic", capacity=1, admit_after=2, evict=evict), NUM_IDS)
    for step, items in enumerate([[3, 3], [5, 5, 5], [3], [3]]):
        observe(ids, items, step)
        # 5 takes the row of 3, which must be seen twice again, and with LFU more often than 5.
        assert ids.live_ids().tolist() == [[3], [5], [5], [5] if evict == "lfu" else [3]][step]

"""Slicing and joining jagged sequences, against plain lists."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unigrf_dist.data.sequences import Sequences, concatenate, offsets_of, ragged_index

Lists = list[list[int]]


def sequences_of(users: Lists) -> Sequences:
    events = np.array([event for user in users for event in user], dtype=np.int64)
    offsets = offsets_of(np.array([len(user) for user in users], dtype=np.int64))
    return Sequences(np.arange(len(users)), offsets, events, (events % 7).astype(np.int16), 3 * events)


def lists_of(sequences: Sequences) -> Lists:
    assert sequences.behaviours.tolist() == (sequences.item_ids % 7).tolist()
    assert sequences.timestamps.tolist() == (3 * sequences.item_ids).tolist()
    bounds = sequences.offsets.tolist()
    return [sequences.item_ids[start:stop].tolist() for start, stop in itertools.pairwise(bounds)]


def test_ragged_index_lays_ranges_end_to_end() -> None:
    offsets, index = ragged_index(np.array([5, 0, 9]), np.array([7, 0, 10]))
    assert offsets.tolist() == [0, 2, 2, 3]
    assert index.tolist() == [5, 6, 9]


@given(st.data())
def test_cut_and_take_agree_with_lists(data: st.DataObject) -> None:
    users = data.draw(st.lists(st.lists(st.integers(0, 1000), max_size=8), min_size=1, max_size=8))
    chosen = data.draw(st.lists(st.integers(0, len(users) - 1), max_size=8))
    starts = [data.draw(st.integers(0, len(users[user]))) for user in chosen]
    stops = [data.draw(st.integers(start, len(users[user]))) for user, start in zip(chosen, starts, strict=True)]
    sequences, rows = sequences_of(users), np.array(chosen, dtype=np.int64)
    cut = sequences.cut(rows, np.array(starts, dtype=np.int64), np.array(stops, dtype=np.int64))
    assert cut.user_ids.tolist() == chosen
    expected = zip(chosen, starts, stops, strict=True)
    assert lists_of(cut) == [users[user][start:stop] for user, start, stop in expected]
    assert lists_of(sequences.take(rows)) == [users[user] for user in chosen]
    assert lists_of(sequences.take(slice(1, 3))) == users[1:3]


@given(st.lists(st.lists(st.lists(st.integers(0, 1000), max_size=4), max_size=4), min_size=1, max_size=4))
def test_concatenate_agrees_with_lists(parts: list[Lists]) -> None:
    joined = concatenate([sequences_of(part) for part in parts])
    assert lists_of(joined) == [user for part in parts for user in part]

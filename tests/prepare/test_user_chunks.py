"""Regrouping sorted events: whole users, wherever the stream of events is cut."""

from __future__ import annotations

import itertools

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from unigrf_dist.prepare.user_chunks import user_chunks

Row = tuple[int, int, int, int, int]


def batches(rows: list[Row], cuts: list[int]) -> list[pa.RecordBatch]:
    bounds = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    types = [pa.int64(), pa.int64(), pa.int16(), pa.int64(), pa.int64()]
    return [
        pa.RecordBatch.from_arrays(
            [
                pa.array(list(column), kind)
                for column, kind in zip(zip(*rows[start:stop], strict=True), types, strict=True)
            ],
            names=["user", "item", "code", "time", "position"],
        )
        for start, stop in itertools.pairwise(bounds)
    ]


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    positions=st.permutations(range(40)),
    cuts=st.lists(st.integers(0, 40), max_size=12),
)
def test_users_stay_whole_wherever_the_stream_is_cut(
    lengths: list[int], positions: list[int], cuts: list[int]
) -> None:
    users = [7 * number for number, length in enumerate(lengths) for _ in range(length)]
    # Times in microseconds; two events in a row share a second, and every fourth pair the whole time.
    rows = [
        (user, n, n % 3, n // 2 * 1_000_000 + n % 2 * (n % 8 > 1), positions[n]) for n, user in enumerate(users)
    ]
    found: list[tuple[int, int]] = []
    events: list[tuple[int, ...]] = []
    unsorted = 0
    for chunk in user_chunks(batches(rows, cuts)):
        found += zip(chunk.raw_user_ids.to_pylist(), chunk.lengths.tolist(), strict=True)
        columns = (chunk.item_ids, chunk.behaviours, chunk.timestamps)
        events += zip(*(column.tolist() for column in columns), strict=True)
        unsorted += chunk.num_unsorted_users
    assert found == [(7 * number, length) for number, length in enumerate(lengths)]
    assert events == [(item, code, time // 1_000_000) for _, item, code, time, _ in rows]
    by_user = [[row[4] for row in rows if row[0] == user] for user, _ in found]
    assert unsorted == sum(order != sorted(order) for order in by_user)


def test_no_events_make_no_chunks() -> None:
    assert list(user_chunks([])) == []


def test_duplicates_are_counted_wherever_they_stand_among_events_of_the_same_time() -> None:
    """Of each user: equal up to the order of the file; another microsecond, item, code or user is no duplicate."""
    rows = [
        (1, 5, 0, 7_000_000, 0),
        (1, 6, 0, 7_000_000, 1),
        (1, 5, 0, 7_000_000, 2),
        (1, 5, 0, 7_000_000, 3),
        (1, 5, 1, 7_000_000, 4),
        (1, 5, 0, 7_000_001, 5),
        (2, 5, 0, 7_000_001, 6),
        (2, 5, 0, 7_000_001, 7),
    ]
    assert [sum(chunk.num_duplicates for chunk in user_chunks(batches(rows, [cut]))) for cut in (0, 3, 6)] == [
        3
    ] * 3

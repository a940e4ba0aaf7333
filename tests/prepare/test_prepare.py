"""From raw rows to sequences: order, ids, codes, dropped and skipped rows, written files."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.prepare.raw_files import refusal, sequences, write_raw
from unigrf_dist.data import open_dataset
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping
from unigrf_dist.prepare.summary import summary_table

RATED = ColumnMapping(user="u", item="i", timestamp="t", behaviours=("rating",))


def rating(value: float) -> dict[str, float]:
    return {"rating": value}


def test_events_are_sorted_by_user_and_time(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", "7::30::4::200", "2::10::5::50", "7::20::1::100", "2::30::2::60")
    summary = prepare("movielens-1m", raw=raw, out=tmp_path / "out")
    assert sequences(tmp_path / "out") == {
        2: [(10, rating(5), 50), (30, rating(2), 60)],
        7: [(20, rating(1), 100), (30, rating(4), 200)],
    }
    assert summary.manifest.num_unsorted_users == 1
    assert summary.manifest.behaviours == [rating(1), rating(2), rating(4), rating(5)]
    assert summary.manifest.behaviour_counts == [1, 1, 1, 1]
    assert summary.manifest.source == "movielens-1m"


def test_events_of_equal_time_keep_the_order_of_the_file(tmp_path: Path) -> None:
    items = list(range(1, 2001))
    random.Random(3).shuffle(items)
    lines = [f"{1 + n % 3}::{item}::3::{n // 500}" for n, item in enumerate(items)]
    raw = write_raw(tmp_path, "ratings.dat", *lines)
    summary = prepare("movielens-1m", raw=raw, out=tmp_path / "out")
    assert {user: [item for item, *_ in events] for user, events in sequences(tmp_path / "out").items()} == {
        user: items[user - 1 :: 3] for user in (1, 2, 3)
    }
    assert summary.manifest.num_unsorted_users == 0


def test_rows_of_several_files_keep_the_order_of_the_files(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "b.csv", "u,i,t", "1,5,9", "1,4,9")
    write_raw(tmp_path / "raw", "a.csv", "u,i,t", "1,9,9", "1,7,9")
    columns = ColumnMapping(user="u", item="i", timestamp="t")
    prepare("csv", raw=tmp_path / "raw", out=tmp_path / "out", columns=columns)
    assert [item for item, *_ in sequences(tmp_path / "out")[1]] == [9, 7, 5, 4]


def test_finer_time_than_seconds_still_orders(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv", "u,i,t", "1,5,1999", "1,4,1001", "1,3,2000")
    columns = ColumnMapping(user="u", item="i", timestamp="t", time_unit="ms")
    prepare("csv", raw=raw, out=tmp_path / "out", columns=columns)
    assert [(item, time) for item, _, time in sequences(tmp_path / "out")[1]] == [(4, 1), (5, 1), (3, 2)]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_ids_never_pass_through_floats(tmp_path: Path, format: str) -> None:
    """Neighbours that float64 cannot tell apart, up to the largest id there is."""
    users, items = [2**53, 2**53 + 1, 2**63 - 1], [2**63 - 1, 2**63 - 2, 2**24 + 1]
    raw = tmp_path / f"raw.{format}"
    if format == "csv":
        write_raw(tmp_path, raw.name, "u,i,t,rating", *(f"{u},{i},0,1" for u in users for i in items))
    else:
        rows = {"u": [u for u in users for _ in items], "i": items * 3, "t": [0] * 9, "rating": [1.0] * 9}
        pq.write_table(pa.table(rows), raw)
    prepare(format, raw=raw, out=tmp_path / "out", columns=RATED)
    assert sequences(tmp_path / "out") == {user: [(item, rating(1), 0) for item in items] for user in users}


def test_text_ids_stay_as_they_are(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv", "u,i,t", '"Zoë, A.",007,2', '"Zoë, A.",7,1', 'bob," x ",3')
    columns = ColumnMapping(user="u", item="i", timestamp="t", string_ids=True)
    prepare("csv", raw=raw, out=tmp_path / "out", columns=columns)
    event = {"event": 1.0}
    assert sequences(tmp_path / "out") == {
        "Zoë, A.": [("7", event, 1), ("007", event, 2)],
        "bob": [(" x ", event, 3)],
    }


def test_several_behaviour_columns_become_one_code_each_combination(tmp_path: Path) -> None:
    raw = write_raw(
        tmp_path, "raw.csv", "u,i,t,click,stars", "1,1,1,1,4.5", "1,2,2,0,4.5", "1,3,3,1,4.5", "1,4,4,1,2"
    )
    columns = ColumnMapping(user="u", item="i", timestamp="t", behaviours=("stars", "click"))
    manifest = prepare("csv", raw=raw, out=tmp_path / "out", columns=columns).manifest
    assert manifest.behaviours == [
        {"stars": 2.0, "click": 1.0},
        {"stars": 4.5, "click": 0.0},
        {"stars": 4.5, "click": 1.0},
    ]
    assert manifest.behaviour_counts == [1, 1, 2]


def test_parquet_timestamps_and_folders(tmp_path: Path) -> None:
    """A column of TIMESTAMP type needs no unit; files of nested folders are read in the order of their names."""
    for day in (1, 2):
        folder = tmp_path / "raw" / f"day={day}"
        folder.mkdir(parents=True)
        times = pa.array([day * 1_500_000, day * 1_000_000], pa.timestamp("us"))
        pq.write_table(
            pa.table({"u": [1, 1], "i": pa.array([day, 9], pa.uint64()), "t": times}), folder / "x.parquet"
        )
    columns = ColumnMapping(user="u", item="i", timestamp="t")
    prepare("parquet", raw=tmp_path / "raw", out=tmp_path / "out", columns=columns)
    assert [(item, time) for item, _, time in sequences(tmp_path / "out")[1]] == [(9, 1), (1, 1), (9, 2), (2, 3)]


def test_a_user_with_one_event_stays_for_training(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", "1::10::5::1", "2::10::5::1", "2::11::5::2", "2::12::5::3")
    manifest = prepare("movielens-1m", raw=raw, out=tmp_path / "out").manifest
    assert (manifest.num_users, manifest.num_training_only_users, manifest.num_training_events) == (2, 1, 2)
    assert open_dataset(tmp_path / "out").training_counts().tolist() == [2, 0, 0]


def test_rare_users_and_items_are_dropped_on_request(tmp_path: Path) -> None:
    """Counts are taken once: item 10 stays although user 3, who has one of its two events, goes."""
    rows = [(1, 10), (1, 11), (1, 12), (2, 11), (2, 12), (2, 13), (3, 10), (3, 11)]
    raw = write_raw(tmp_path, "ratings.dat", *(f"{user}::{item}::5::{n}" for n, (user, item) in enumerate(rows)))
    prepare("movielens-1m", raw=raw, out=tmp_path / "out", min_events=3, min_item_events=2)
    assert {user: [item for item, *_ in events] for user, events in sequences(tmp_path / "out").items()} == {
        1: [10, 11, 12],
        2: [11, 12],
    }
    assert open_dataset(tmp_path / "out").num_items == 3


def test_bad_rows_are_skipped_counted_and_shown(tmp_path: Path) -> None:
    lines = ["1::10::5::1", "1::x::5::2", "", "1::11::5", "1::12::9::3", "1::13::5::4", "1::14::5::6::7"]
    raw = write_raw(tmp_path, "ratings.dat", *lines)
    summary = prepare("movielens-1m", raw=raw, out=tmp_path / "out", on_bad_row="skip")
    assert [item for item, *_ in sequences(tmp_path / "out")[1]] == [10, 13]
    skipped = summary.manifest.skipped_rows
    assert skipped.count == 4
    assert [line.removeprefix(f"{raw}, ") for line in skipped.sample] == [
        "line 2: column item: 'x' is no integer",
        "line 4: Expected Number of Columns: 4 Found: 3: '1::11::5'",
        "line 5: column rating: '9' is outside [1, 5]",
        "line 7: Expected Number of Columns: 4 Found: 5: '1::14::5::6::7'",
    ]
    shown = io.StringIO()
    Console(width=300, file=shown).print(summary_table(summary))
    assert "line 5: column rating: '9' is outside [1, 5]" in shown.getvalue()


def test_bad_rows_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", "1::10::5::1", "1::[red]x[/red]::5::2")
    summary = prepare("movielens-1m", raw=raw, out=tmp_path / "out", on_bad_row="skip")
    shown = io.StringIO()
    Console(width=300, file=shown).print(summary_table(summary))
    assert "column item: '[red]x[/red]' is no integer" in shown.getvalue()


def test_lines_are_counted_over_quoted_line_ends(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv", "u,i,t", '"a', 'b",1,1', "c,2,2", "d,3,late")
    columns = ColumnMapping(user="u", item="i", timestamp="t", string_ids=True)
    assert "raw.csv, line 5: column t: 'late' is no number" in refusal(
        tmp_path / "o" / "out", "csv", raw, columns=columns
    )


def test_many_bad_rows_are_all_counted_and_ten_shown(tmp_path: Path) -> None:
    lines = [f"{n}::1::5::{'x' if n % 2 else 1}" for n in range(100)]
    raw = write_raw(tmp_path, "ratings.dat", *lines)
    skipped = prepare("movielens-1m", raw=raw, out=tmp_path / "out", on_bad_row="skip").manifest.skipped_rows
    assert (skipped.count, len(skipped.sample)) == (50, 10)


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    raw = tmp_path / "raw.csv"
    raw.write_bytes(b"\xef\xbb\xbfu,i,t\r\n1,2,3\r\n1,4,5\r\n")
    prepare("csv", raw=raw, out=tmp_path / "out", columns=ColumnMapping(user="u", item="i", timestamp="t"))
    assert [(item, time) for item, _, time in sequences(tmp_path / "out")[1]] == [(2, 3), (4, 5)]


def test_progress_reports_each_phase(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", "1::10::5::1")
    calls: list[tuple[str, float]] = []
    prepare(
        "movielens-1m", raw=raw, out=tmp_path / "out", progress=lambda phase, share: calls.append((phase, share))
    )
    assert calls == [("read ratings.dat", 0.0), ("sort", 0.0), ("write", 1.0)]


def test_a_small_memory_limit_spills_and_changes_nothing(tmp_path: Path) -> None:
    draw = random.Random(1)
    rows = [f"{draw.randrange(20_000)}::{draw.randrange(5000)}::3::{draw.randrange(1000)}" for _ in range(300_000)]
    raw = write_raw(tmp_path, "ratings.dat", *rows)
    roomy = prepare("movielens-1m", raw=raw, out=tmp_path / "roomy", memory_limit="2GB").manifest
    tight = prepare("movielens-1m", raw=raw, out=tmp_path / "tight", memory_limit="64MB").manifest
    assert tight == roomy


def test_only_the_data_set_is_left(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", "ratings.dat", "1::10::5::1")
    prepare("movielens-1m", raw=raw, out=tmp_path / "out" / "set")
    left = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    files = {"manifest.json", "items.parquet", "users.parquet", "sequences", "sequences/part-00000.parquet"}
    assert left == {"set"} | {f"set/{file}" for file in files}


def test_a_used_folder_is_replaced_only_on_request(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", "ratings.dat", "1::10::5::1")
    write_raw(tmp_path / "o" / "out", "precious.txt", "kept")
    assert "is not empty" in refusal(tmp_path / "o" / "out", "movielens-1m", raw)
    assert (tmp_path / "o" / "out" / "precious.txt").read_text() == "kept\n"
    prepare("movielens-1m", raw=raw, out=tmp_path / "o" / "out", overwrite=True)
    assert sequences(tmp_path / "o" / "out") == {1: [(10, rating(5), 1)]}
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["out"]


def test_an_empty_folder_is_accepted(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", "ratings.dat", "1::10::5::1")
    (tmp_path / "out").mkdir()
    prepare("movielens-1m", raw=raw, out=tmp_path / "out")
    assert open_dataset(tmp_path / "out").num_users == 1


@settings(max_examples=15)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 2**40), st.integers(1, 5), st.integers(-3, 3)),
        min_size=1,
        max_size=60,
    ),
    row_group_users=st.integers(1, 3),
)
def test_any_rows_become_what_a_stable_sort_makes_of_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, int]], row_group_users: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    raw = write_raw(folder, "ratings.dat", *("::".join(map(str, row)) for row in rows))
    prepare("movielens-1m", raw=raw, out=folder / "out", row_group_users=row_group_users, shard_users=2)
    expected: dict[int, list[tuple[int, dict[str, float], int]]] = {}
    for user, item, stars, time in sorted(rows, key=lambda row: (row[0], row[3])):
        expected.setdefault(user, []).append((item, rating(stars), time))
    assert sequences(folder / "out") == expected


def test_the_manifest_records_which_columns_were_read(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv", "u,i,t,rating", "1,5,1999,4", "1,4,1001,2")
    manifest = prepare("csv", raw=raw, out=tmp_path / "out", columns=RATED).manifest
    named_columns = {"column user": "u", "column item": "i", "column timestamp": "t", "column behaviour": "rating"}
    assert manifest.arguments == {"min_events": 1, "min_item_events": 1, "time_unit": "s", **named_columns}

"""Every error in raw files: one line that names file, row and column, and no output left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.prepare.raw_files import refusal, write_raw
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping
from unigrf_dist.prepare.writer import DatasetWriter

GOOD = "1::10::5::100"
COLUMNS = ColumnMapping(user="u", item="i", timestamp="t", behaviours=("r",))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("x::10::5::100", "column user: 'x' is no integer"),
        ("-1::10::5::100", "column user: '-1' is negative"),
        ("9223372036854775808::10::5::100", "column user: '9223372036854775808' does not fit into 64 bits"),
        ("::10::5::100", "column user is empty"),
        ("1::1.5::5::100", "column item: '1.5' is no integer"),
        ("1::1e3::5::100", "column item: '1e3' is no integer"),
        ("1::nan::5::100", "column item: 'nan' is no integer"),
        ("1::-7::5::100", "column item: '-7' is negative"),
        ("1::18446744073709551616::5::100", "column item: '18446744073709551616' does not fit into 64 bits"),
        ("1::::5::100", "column item is empty"),
        ("1::10::nan::100", "column rating: 'nan' is not finite"),
        ("1::10::inf::100", "column rating: 'inf' is not finite"),
        ("1::10::good::100", "column rating: 'good' is no number"),
        ("1::10::6::100", "column rating: '6' is outside [1, 5]"),
        ("1::10::::100", "column rating is empty"),
        ("1::10::5::", "column timestamp is empty"),
        (
            "1::10::5::yesterday",
            "column timestamp: 'yesterday' is no number (in s) and no date such as 2024-01-31T12:00:00Z",
        ),
        (
            "1::10::5::1700000000000",
            "column timestamp: '1700000000000' is beyond the year 9999 when read as s; is the unit another?",
        ),
        ("1::10::5", "Expected Number of Columns: 4 Found: 3: '1::10::5'"),
        ("1::10::5::100::7", "Expected Number of Columns: 4 Found: 5: '1::10::5::100::7'"),
    ],
)
def test_a_bad_row(tmp_path: Path, row: str, expected: str) -> None:
    raw = write_raw(tmp_path, "ratings.dat", GOOD, GOOD, row, GOOD)
    message = refusal(tmp_path / "o" / "out", "movielens-1m", raw)
    assert message == f"{raw}, line 3: {expected}; fix it, or have bad rows skipped (--on-bad-row skip)"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    raw = tmp_path / "ratings.dat"
    raw.write_bytes(b"1::10::5::1\n1::\xff\xfe::5::2\n")
    assert f"{raw}, line 2: " in refusal(tmp_path / "o" / "out", "movielens-1m", raw)


def test_more_bad_rows_are_counted(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", GOOD, "a::1::1::1", "b::1::1::1", "1::1")
    message = refusal(tmp_path / "o" / "out", "movielens-1m", raw)
    assert "line 2: column user: 'a' is no integer (2 more in this file)" in message


def test_a_missing_path(tmp_path: Path) -> None:
    assert "nowhere: no such file or folder" in refusal(tmp_path / "out", "movielens-1m", tmp_path / "nowhere")


def test_a_folder_without_the_file(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "movies.dat", "1")
    message = refusal(tmp_path / "out", "movielens-1m", tmp_path / "raw")
    assert "raw: holds no ratings.dat; name the file itself, or choose another format" in message


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_raw(tmp_path, "ratings.dat", GOOD)
    honest = Path.open

    def denied(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == raw:
            raise PermissionError(errno.EACCES, "Permission denied")
        return honest(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", denied)
    assert "ratings.dat: cannot be read: Permission denied" in refusal(tmp_path / "o" / "out", "movielens-1m", raw)


def test_an_unknown_format(tmp_path: Path) -> None:
    message = refusal(tmp_path / "out", "netflix", tmp_path)
    assert "format 'netflix' is unknown; there are movielens-1m, movielens-20m, " in message


def test_columns_for_a_format_that_knows_its_own(tmp_path: Path) -> None:
    assert "knows its columns" in refusal(tmp_path / "out", "movielens-1m", tmp_path, columns=COLUMNS)


def test_a_wrong_delimiter_without_header(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", "1,10,5,100")
    message = refusal(tmp_path / "o" / "out", "movielens-1m", raw)
    assert "line 1: 1 column(s) separated by '::', but 4 are needed: user::item::rating::timestamp" in message


def test_a_wrong_delimiter_under_a_header(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv", "u;i;t;r", "1;2;3;4")
    message = refusal(tmp_path / "o" / "out", "csv", raw, columns=COLUMNS)
    assert "raw.csv: no column 'u'; there are u;i;t;r; is the delimiter really ','?" in message


@pytest.mark.parametrize("missing", ["u", "i", "t", "r"])
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_missing_column(tmp_path: Path, format: str, missing: str) -> None:
    names = [name for name in "uitr" if name != missing]
    raw = tmp_path / f"raw.{format}"
    if format == "csv":
        write_raw(tmp_path, raw.name, ",".join(names), "1,1,1")
    else:
        pq.write_table(pa.table({name: [1] for name in names}), raw)
    message = refusal(tmp_path / "o" / "out", format, raw, columns=COLUMNS)
    assert message.startswith(f"{raw}: no column '{missing}'; there are {', '.join(names)}")


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_repeated_column(tmp_path: Path, format: str) -> None:
    raw = tmp_path / f"raw.{format}"
    if format == "csv":
        write_raw(tmp_path, raw.name, "u,i,t,r,i", "1,1,1,1,1")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array([1])] * 5, names=list("uitri")), raw)
    message = refusal(tmp_path / "o" / "out", format, raw, columns=COLUMNS)
    assert message == f"{raw}: column 'i' occurs more than once; rename or drop one"


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("u", [1.5], "row 1: column u: '1.5' is no integer"),
        ("i", [2.0**53 + 2], "row 1: column i: '9007199254740994.0' is a float too large to hold every integer"),
        ("i", pa.array([2.0**24 + 2], pa.float32()), "is a float too large to hold every integer"),
        ("i", [float("inf")], "row 1: column i: 'inf' is no integer"),
        ("i", [True], "raw.parquet: column 'i' is BOOLEAN; ids must be integers or text"),
        ("t", [True], "raw.parquet: column 't' is BOOLEAN; timestamps must be numbers, dates or text"),
        ("t", [float("nan")], "row 1: column t: 'nan' is beyond the year 9999 when read as s"),
        ("u", [None], "row 1: column u is empty"),
        ("i", pa.array([2**63], pa.uint64()), "row 1: column i: '9223372036854775808' does not fit into 64 bits"),
        ("i", [-1], "row 1: column i: '-1' is negative"),
        ("r", [float("inf")], "row 1: column r: 'inf' is not finite"),
        ("t", pa.array([None], pa.timestamp("us")), "row 1: column t is empty"),
    ],
)
def test_a_bad_parquet_column(tmp_path: Path, column: str, values: Any, expected: str) -> None:
    table = {"u": [1], "i": [1], "t": [1], "r": [1.0]} | {column: values}
    if values == [None]:
        table[column] = pa.array(values, pa.int64())
    pq.write_table(pa.table(table), tmp_path / "raw.parquet")
    assert expected in refusal(tmp_path / "o" / "out", "parquet", tmp_path / "raw.parquet", columns=COLUMNS)


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    raw = tmp_path / "raw.parquet"
    pq.write_table(pa.table({name: list(range(1000)) for name in "uitr"}), raw)
    raw.write_bytes(raw.read_bytes()[:-50])
    assert f"{raw}: cannot be read: " in refusal(tmp_path / "o" / "out", "parquet", raw, columns=COLUMNS)


def test_a_parquet_file_with_a_broken_page(tmp_path: Path) -> None:
    raw = tmp_path / "raw.parquet"
    pq.write_table(pa.table({name: list(range(5000)) for name in "uitr"}), raw)
    content = bytearray(raw.read_bytes())
    content[4:60] = bytes(56)
    raw.write_bytes(bytes(content))
    assert f"{raw}: cannot be read: " in refusal(tmp_path / "o" / "out", "parquet", raw, columns=COLUMNS)


def test_a_truncated_compressed_file(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv.gz", "u,i,t,r", *(f"{n},{n * n},{n},1" for n in range(5000)))
    raw.write_bytes(raw.read_bytes()[:-3000])
    assert f"{raw}: cannot be read: " in refusal(tmp_path / "o" / "out", "csv", raw, columns=COLUMNS)


@pytest.mark.parametrize("lines", [[], [""]], ids=["no bytes", "a blank line"])
def test_an_empty_file(tmp_path: Path, lines: list[str]) -> None:
    raw = write_raw(tmp_path, "ratings.dat", *lines)
    assert refusal(tmp_path / "o" / "out", "movielens-1m", raw) == f"{raw}: is empty"


def test_a_header_and_nothing_under_it(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv", "u,i,t,r")
    message = refusal(tmp_path / "o" / "out", "csv", raw, columns=COLUMNS)
    assert message.startswith(f"{raw}: no events are left")


def test_nothing_left_after_skipping(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", "x::1::1::1")
    message = refusal(tmp_path / "o" / "out", "movielens-1m", raw, on_bad_row="skip")
    assert "no events are left; check the file, the format and the minimal counts" in message


def test_nothing_left_after_dropping_rare_users(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", GOOD)
    assert "no events are left" in refusal(tmp_path / "o" / "out", "movielens-1m", raw, min_events=2)


def test_too_many_distinct_behaviours(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv", "u,i,t,r", *(f"1,{n},{n},{n / 7}" for n in range(2**15 + 1)))
    message = refusal(tmp_path / "o" / "out", "csv", raw, columns=COLUMNS)
    assert "column 'r' has more than 1,000 distinct values; put a continuous one into buckets" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"min_events": 0}, "min_events is 0; it must be at least 1"),
        ({"min_item_events": -1}, "min_item_events is -1; it must be at least 1"),
        ({"row_group_users": 0}, "row_group_users is 0; it must be at least 1"),
        ({"shard_users": 0}, "shard_users is 0; it must be at least 1"),
        ({"on_bad_row": "ignore"}, "on_bad_row is 'ignore'; allowed are 'error' and 'skip'"),
        ({"memory_limit": "plenty"}, "memory limit 'plenty' is no size; write it as 512MB or 2GB"),
    ],
)
def test_a_bad_option(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    raw = write_raw(tmp_path, "ratings.dat", GOOD)
    assert refusal(tmp_path / "o" / "out", "movielens-1m", raw, **options) == expected


def test_too_little_memory(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", *(f"{n}::{n}::5::{n}" for n in range(20_000)))
    message = refusal(tmp_path / "o" / "out", "movielens-1m", raw, memory_limit="1MB")
    assert "memory limit 1MB is too small for this data; raise it" in message


def test_out_is_a_file(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", GOOD)
    out = write_raw(tmp_path / "o", "out", "text")
    assert "out: is a file; choose another folder" in refusal(out, "movielens-1m", raw)


def test_out_lies_inside_a_file(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", GOOD)
    with pytest.raises(UserError, match=r"cannot be written: .*; choose another folder"):
        prepare("movielens-1m", raw=raw, out=raw / "below" / "out")


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_in_duckdb(*_: Any, **__: Any) -> Any:
    raise duckdb.IOException('IO Error: Could not write all bytes to file "spill": No space left on device')


@pytest.mark.parametrize("fault", [full_disk, full_disk_in_duckdb])
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]) -> None:
    raw = write_raw(tmp_path, "ratings.dat", GOOD)
    monkeypatch.setattr(DatasetWriter, "add", fault)
    assert f"{tmp_path / 'o' / 'out'}: the disk is full" in refusal(tmp_path / "o" / "out", "movielens-1m", raw)


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    raw = write_raw(tmp_path, "ratings.dat", GOOD)
    monkeypatch.setattr(DatasetWriter, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare("movielens-1m", raw=raw, out=tmp_path / "o" / "out")
    assert list((tmp_path / "o").iterdir()) == []

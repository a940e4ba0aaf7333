"""Files as companies have them: odd names, odd columns, odd text. Each is read right, or refused in one line."""

from __future__ import annotations

import datetime
import decimal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.prepare.raw_files import refusal, sequences, write_raw
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping

COLUMNS = ColumnMapping(user="u", item="i", timestamp="t", behaviours=("r",))
ROWS = ["1,10,1,5", "1,11,2,4", "1,12,3,3"]


def items(out: Path, format: str, raw: Path, **options: Any) -> dict[Any, list[Any]]:
    """Prepare; raw user -> raw items."""
    prepare(format, raw=raw, out=out, **{"columns": COLUMNS, **options})
    return {user: [item for item, *_ in events] for user, events in sequences(out).items()}


def write_parquet(file: Path, **columns: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        pq.write_table(
            pa.table({"u": [1, 1, 1], "i": [10, 11, 12], "t": [1, 2, 3], "r": [5.0, 4, 3]} | columns), out
        )
    return file


@pytest.mark.parametrize("folder", ["i=7", "u=9", "t=2024-01-01", "r=x"])
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_names_of_folders_are_no_columns(tmp_path: Path, folder: str, format: str) -> None:
    file = tmp_path / folder / f"a.{format}"
    if format == "csv":
        write_raw(file.parent, file.name, "u,i,t,r", *ROWS)
    elif format == "jsonl":
        lines = [f'{{"u": {u}, "i": {i}, "t": {t}, "r": {r}}}' for u, i, t, r in (row.split(",") for row in ROWS)]
        write_raw(file.parent, file.name, *lines)
    else:
        write_parquet(file)
    assert items(tmp_path / "out", format, tmp_path / folder) == {1: [10, 11, 12]}


@pytest.mark.parametrize(
    "name", ["log[1]", "log*", "log?", "log{1,2}", "it's", "a b", "~", "s3:", "größe", '"', "["]
)
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_names_of_files_are_no_patterns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, format: str
) -> None:
    """Also as a path that is relative, in a folder of that name, beside a file that the pattern would match."""
    monkeypatch.chdir(tmp_path)
    raw = Path(name) / f"{name}.{format}"
    other = Path("log1") / f"log1.{format}"
    for file, item in ((raw, 10), (other, 70)):
        if format == "csv":
            write_raw(file.parent, file.name, "u,i,t,r", f"1,{item},1,5")
        elif format == "jsonl":
            write_raw(file.parent, file.name, f'{{"u":1,"i":{item},"t":1,"r":5}}')
        else:
            write_parquet(file, u=[1], i=[item], t=[1], r=[5.0])
    assert items(tmp_path / "out", format, raw) == {1: [10]}


@pytest.mark.parametrize(
    "header", ["u,I,i,t,r", "u,,i,t,r", 'u,a"b,i,t,r', "u,raw_1,i,t,r", "u,c2,i,t,r", "u,x,i,t,r,x"]
)
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_other_columns_may_be_called_anything(tmp_path: Path, header: str, format: str) -> None:
    names, values = header.split(","), [[1, 1], [90, 91], [10, 11], [1, 2], [5, 4], [0, 0]]
    raw = tmp_path / f"a.{format}"
    if format == "csv":
        quoted = ",".join('"' + name.replace('"', '""') + '"' for name in names)
        write_raw(
            tmp_path,
            raw.name,
            quoted,
            *(",".join(map(str, row)) for row in zip(*values[: len(names)], strict=True)),
        )
    else:
        pq.write_table(pa.Table.from_arrays([pa.array(v) for v in values[: len(names)]], names=names), raw)
    assert items(tmp_path / "out", format, raw) == {1: [10, 11]}


@pytest.mark.parametrize("user", ["I", "a b", "it's", 'a"b', "", "a/b", "a~1b", "$.i"])
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_the_needed_columns_may_be_called_anything(tmp_path: Path, user: str, format: str) -> None:
    raw, columns = tmp_path / f"a.{format}", ColumnMapping(user=user, item="i", timestamp="t")
    if format == "csv":
        write_raw(tmp_path, raw.name, '"' + user.replace('"', '""') + '",i,t', "3,10,1")
    elif format == "jsonl":
        key = user.replace('"', '\\"')
        write_raw(tmp_path, raw.name, f'{{"{key}": 3, "i": 10, "t": 1}}')
    else:
        pq.write_table(pa.table({user: [3], "i": [10], "t": [1]}), raw)
    assert items(tmp_path / "out", format, raw, columns=columns) == {3: [10]}


def test_hidden_and_staging_files_are_not_data(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for name in (
        "d=1/a.parquet",
        "_temporary/0/d=1/a.parquet",
        ".x/a.parquet",
        "d=1/._a.parquet",
        "d=1/_a.parquet",
    ):
        write_parquet(raw / name)
    (raw / "_SUCCESS").touch()
    assert items(tmp_path / "out", "parquet", raw) == {1: [10, 11, 12]}


def test_a_named_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    assert items(tmp_path / "out", "csv", write_raw(tmp_path, "_a.txt", "u,i,t,r", *ROWS)) == {1: [10, 11, 12]}


QUOTES = ["u,i,t,r,x", '1,10,1,5,the 12" mix', "1,z,2,4,ok", '1,11,2,4,"a', 'b, ""c"""', '"1",y,2,4,ok']


def test_a_quote_within_a_field_is_a_character(tmp_path: Path) -> None:
    """Lines are counted over fields with line ends and are not put off by quotes within fields."""
    raw = write_raw(tmp_path, "a.csv", *QUOTES)
    assert "a.csv, line 3: column i: 'z' is no integer (1 more" in refusal(
        tmp_path / "o" / "out", "csv", raw, columns=COLUMNS
    )
    assert items(tmp_path / "out", "csv", raw, on_bad_row="skip") == {1: [10, 11]}


def test_skipped_rows_are_named_by_their_lines_in_a_file_with_every_trouble(tmp_path: Path) -> None:
    lines = ["", *QUOTES, "   ", "1,2", "", '1,12,3,5,"a"b', "1,13,4,5,ok", "1,14,-,5,ok"]
    raw = write_raw(tmp_path, "a.csv", *lines)
    manifest = prepare("csv", raw=raw, out=tmp_path / "out", columns=COLUMNS, on_bad_row="skip").manifest
    assert manifest.num_events == 3
    assert [line.split(": ")[0] for line in manifest.skipped_rows.sample] == [
        f"{raw}, line {line}" for line in (4, 7, 8, 9, 11, 13)
    ]
    assert manifest.skipped_rows.count == 6


@pytest.mark.parametrize("delimiter", [",", "::"])
def test_an_open_quote_is_refused_even_where_bad_rows_are_skipped(tmp_path: Path, delimiter: str) -> None:
    lines = [f"1,{k},{k},5," + ('"open' if k == 5 else "ok") for k in range(20)]
    raw = write_raw(tmp_path, "a.csv", *(line.replace(",", delimiter) for line in ("u,i,t,r,x", *lines)))
    columns = ColumnMapping(user="u", item="i", timestamp="t", behaviours=("r",), delimiter=delimiter)
    message = refusal(tmp_path / "o" / "out", "csv", raw, columns=columns, on_bad_row="skip")
    assert "a.csv, line 7: a quote that begins here is not closed as it should be up to line 21" in message
    plain = ColumnMapping(user="u", item="i", timestamp="t", behaviours=("r",), delimiter=delimiter, quoted=False)
    assert items(tmp_path / "out", "csv", raw, columns=plain) == {1: list(range(20))}


def test_bad_rows_cost_no_more_than_linear_time(tmp_path: Path) -> None:
    """A stray quote once made the search for the line quadratic: 200,000 rows took minutes."""
    rows = ['1,1,0,5,the 12" mix', *(f"{k % 50},{k},{k},3,words" for k in range(200_000)), "1,z,1,1,x"]
    raw = write_raw(tmp_path, "a.csv", "u,i,t,r,x", *rows)
    begun = time.process_time()
    assert "line 200003: column i: 'z'" in refusal(tmp_path / "o" / "out", "csv", raw, columns=COLUMNS)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252"])
@pytest.mark.parametrize("ends", ["\r\n \n \n", "\n \r\n \n", "\n \r \r\n", "\r \n \r\n"])
def test_lines_that_end_in_several_ways_are_read_by_their_numbers(
    tmp_path: Path, ends: str, encoding: str
) -> None:
    raw, [first, second, third] = tmp_path / "a.csv", ends.split(" ")
    text = f"u,i,t,r{first}é,10,1,5{second}é,x,2,z{third}b,12,3,3{first}b,13,4,y{second}"
    raw.write_bytes(text.encode(encoding))
    columns = ColumnMapping(
        user="u", item="i", timestamp="t", behaviours=("r",), string_ids=True, encoding=encoding
    )
    options: dict[str, Any] = {"columns": columns, "on_bad_row": "skip"}
    assert items(tmp_path / "out", "csv", raw, **options) == {"é": ["10"], "b": ["12"]}
    message = refusal(tmp_path / "o" / "out", "csv", raw, columns=columns)
    assert "a.csv, line 3: column r: 'z' is no number (1 more in this file)" in message


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_line_end_is_read(tmp_path: Path, end: str) -> None:
    raw = tmp_path / "a.csv"
    raw.write_bytes(end.join(["u,i,t,r", *ROWS, ""]).encode())
    assert items(tmp_path / "out", "csv", raw) == {1: [10, 11, 12]}


def seconds(out: Path, format: str, raw: Path, **columns: Any) -> list[int]:
    mapping = ColumnMapping(user="u", item="i", timestamp="t", **columns)
    prepare(format, raw=raw, out=out, columns=mapping)
    return [when for _, _, when in sequences(out)[1]]


NOON = datetime.datetime(2024, 1, 31, 12, tzinfo=datetime.timezone.utc)
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
NOON_SECONDS = (NOON - EPOCH).days * 86_400 + 43_200


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_timestamps_of_every_kind(tmp_path: Path, unit: str, zone: str | None) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    times = pa.array(
        [k * per_second + per_second // 2 for k in (10**9, 2 * 10**9, 10**9 + 1)], pa.timestamp(unit, zone)
    )
    raw = write_parquet(tmp_path / "a.parquet", t=times)
    assert seconds(tmp_path / "out", "parquet", raw) == [10**9, 10**9 + 1, 2 * 10**9]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-31T12:00:00Z", NOON_SECONDS),
        ("2024-01-31 12:00:00", NOON_SECONDS),
        ("2024-01-31T12:00:00.987654321Z", NOON_SECONDS),
        ("2024-01-31T12:00:00+02:00", NOON_SECONDS - 7200),
        ("2024-01-31 12:00:00 +0200", NOON_SECONDS - 7200),
        ("2024-01-31 12:00:00 -05:30", NOON_SECONDS + 19_800),
        ("2024-01-31 12:00:00 UTC", NOON_SECONDS),
        ("2024-01-31 12:00:00 Asia/Tokyo", NOON_SECONDS - 9 * 3600),
        ("2024-01-31", NOON_SECONDS - 43_200),
        ("2024-1-31", NOON_SECONDS - 43_200),
        ("1706702400", NOON_SECONDS),
        ("1706702400.75", NOON_SECONDS),
        ("1.7067024e9", NOON_SECONDS),
        (" 1706702400 ", NOON_SECONDS),
    ],
)
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_times_as_text(tmp_path: Path, text: str, expected: int, format: str) -> None:
    raw = tmp_path / f"a.{format}"
    if format == "csv":
        write_raw(tmp_path, raw.name, "u,i,t", f"1,10,{text}")
    else:
        pq.write_table(pa.table({"u": [1], "i": [10], "t": [text]}), raw)
    assert seconds(tmp_path / "out", format, raw) == [expected]


@pytest.mark.parametrize(
    "text", ["2024-13-01", "2024-02-30", "infinity", "epoch", "12:00", "31.01.2024", "01/31/2024"]
)
def test_what_is_no_time_is_refused(tmp_path: Path, text: str) -> None:
    raw = write_raw(tmp_path, "a.csv", "u,i,t,r", f"1,10,{text},5")
    assert "is no number (in s) and no date" in refusal(tmp_path / "o" / "out", "csv", raw, columns=COLUMNS)


@pytest.mark.parametrize(
    ("unit", "text"),
    [("s", "1706702400.5"), ("ms", "1706702400500"), ("us", "1706702400500000.7"), ("ns", "1706702400500000999")],
)
def test_every_unit(tmp_path: Path, unit: Any, text: str) -> None:
    raw = write_raw(tmp_path, "a.csv", "u,i,t", f"1,10,{text}", "1,11,0")
    assert seconds(tmp_path / "csv", "csv", raw, time_unit=unit) == [0, NOON_SECONDS]
    kind = float if "." in text else int
    pq.write_table(pa.table({"u": [1, 1], "i": [10, 11], "t": [kind(text), kind(0)]}), tmp_path / "a.parquet")
    assert seconds(tmp_path / "p", "parquet", tmp_path / "a.parquet", time_unit=unit) == [0, NOON_SECONDS]


def test_a_date_column(tmp_path: Path) -> None:
    raw = write_parquet(tmp_path / "a.parquet", t=[datetime.date(2024, 1, 31)] * 3)
    assert seconds(tmp_path / "out", "parquet", raw) == [NOON_SECONDS - 43_200] * 3


def test_a_fraction_of_a_second_orders(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "a.csv", "u,i,t,r", "1,10,5.75,1", "1,11,5.25,1", "1,12,5.5,1")
    assert items(tmp_path / "out", "csv", raw) == {1: [11, 12, 10]}


@pytest.mark.parametrize(
    "values",
    [
        pa.array([decimal.Decimal(n) for n in (10, 11, 12)], pa.decimal128(38, 0)),
        pa.array([decimal.Decimal(n) for n in (10, 11, 12)], pa.decimal128(20, 4)),
        pa.array([10.0, 11, 12]),
        pa.array([10.0, 11, 12], pa.float32()),
        pa.array(["10", "11.0", " 12. "]),
        pa.array([b"10", b"11", b"12"]),
        pa.array([10, 11, 12], pa.uint8()),
    ],
    ids=["decimal", "scaled decimal", "double", "float", "text", "binary", "uint8"],
)
def test_ids_that_are_whole_numbers(tmp_path: Path, values: pa.Array) -> None:
    assert items(tmp_path / "out", "parquet", write_parquet(tmp_path / "a.parquet", i=values)) == {1: [10, 11, 12]}


def test_decimal_ids_beyond_the_floats(tmp_path: Path) -> None:
    ids = [2**63 - 1, 2**63 - 2, 2**53 + 1]
    values = pa.array([decimal.Decimal(n) for n in ids], pa.decimal128(38, 0))
    assert items(tmp_path / "out", "parquet", write_parquet(tmp_path / "a.parquet", i=values)) == {1: ids}


def test_text_ids_of_other_types(tmp_path: Path) -> None:
    text = ColumnMapping(user="u", item="i", timestamp="t", string_ids=True)
    raw = write_parquet(tmp_path / "a.parquet", u=["a"] * 3, i=["café".encode(), b"x", b"y"])
    assert items(tmp_path / "out", "parquet", raw, columns=text) == {"a": ["café", "x", "y"]}
    raw = write_parquet(tmp_path / "b.parquet", i=[7.0, 8.5, 9.0])
    assert items(tmp_path / "out2", "parquet", raw, columns=text) == {"1": ["7", "8.5", "9"]}
    raw = write_parquet(tmp_path / "c.parquet", i=[b"a", b"\xff", b"b"])
    assert "row 2: column i: '\\xFF' is no UTF-8 text" in refusal(
        tmp_path / "o" / "out", "parquet", raw, columns=text
    )


def test_a_float32_is_the_decimal_that_was_meant(tmp_path: Path) -> None:
    raw = write_parquet(tmp_path / "a.parquet", r=pa.array([0.7, 0.1, 3.3], pa.float32()))
    manifest = prepare("parquet", raw=raw, out=tmp_path / "out", columns=COLUMNS).manifest
    assert manifest.behaviours == [{"r": 0.1}, {"r": 0.7}, {"r": 3.3}]


def test_control_characters_are_escaped(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "a.csv", "u,i,t,r", "1,10,1,5", "1,\x1b[31mx\u202e,2,5")
    message = refusal(tmp_path / "o" / "out", "csv", raw, columns=COLUMNS)
    assert r"'\x1b[31mx\u202e' is no integer" in message
    skipped = prepare(
        "csv", raw=raw, out=tmp_path / "out", columns=COLUMNS, on_bad_row="skip"
    ).manifest.skipped_rows
    assert r"'\x1b[31mx\u202e' is no integer" in skipped.sample[0]


@pytest.mark.parametrize(
    "out", ["/proc/x/out", "/proc/out", "/dev/null/out", "a.csv", "a.csv/out", "a.csv/b/c", "x" * 300]
)
def test_an_output_that_cannot_be_is_one_line(tmp_path: Path, out: str) -> None:
    raw = write_raw(tmp_path, "a.csv", "u,i,t,r", *ROWS)
    with pytest.raises(UserError, match=r"choose another folder") as caught:
        prepare("csv", raw=raw, out=tmp_path / out, columns=COLUMNS)
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also below the raw folder: a part of the data must not be missing unnoticed."""
    import os

    write_raw(tmp_path / "raw" / "a", "a.csv", "u,i,t,r", *ROWS)
    (tmp_path / "raw" / "secret").mkdir()
    honest = os.scandir

    def denied(path: Any) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path)

    monkeypatch.setattr(os, "scandir", denied)
    message = refusal(tmp_path / "o" / "out", "csv", tmp_path / "raw", columns=COLUMNS)
    assert message == f"{tmp_path / 'raw' / 'secret'}: cannot be read: Permission denied"

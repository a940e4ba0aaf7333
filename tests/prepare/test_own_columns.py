"""Own files beyond plain numbers: event types, missing values, buckets, encodings, partitions, several sources."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.prepare.raw_files import refusal, sequences, write_raw
from unigrf_dist.config.task_rule import label_table
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.columns import column_mapping
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping

UIT = ["user=u", "item=i", "timestamp=t"]


def mapping(*behaviours: str, format: str = "csv", **options: Any) -> ColumnMapping:
    """What the command line makes of these options."""
    named = [f"behaviour={behaviour}" for behaviour in behaviours]
    found = column_mapping(format, [*UIT, *named], **{"string_ids": False, "time_unit": "s", **options})
    assert found is not None
    return found


def values(out: Path, user: Any = 1) -> list[dict[str, float]]:
    return [behaviour for _, behaviour, _ in sequences(out)[user]]


def test_each_event_type_is_a_behaviour_for_rules(tmp_path: Path) -> None:
    raw = write_raw(
        tmp_path, "a.csv", "u,i,t,what", "1,10,1,view", "1,11,2,add-to-cart", "1,12,3,购买", "1,13,4, view "
    )
    manifest = prepare("csv", raw=raw, out=tmp_path / "out", columns=mapping(event_type="what")).manifest
    assert values(tmp_path / "out") == [
        {"add_to_cart": 0, "view": 1, "购买": 0},
        {"add_to_cart": 1, "view": 0, "购买": 0},
        {"add_to_cart": 0, "view": 0, "购买": 1},
        {"add_to_cart": 0, "view": 1, "购买": 0},
    ]
    assert label_table(["购买 == 1", "view == 0"], manifest.behaviours) == [[0, 1], [0, 0], [1, 1]]


def test_event_types_and_values_together(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "a.csv", "u,i,t,what,stars", "1,10,1,rate,4.5", "1,11,2,view,", "1,12,3,rate,2")
    prepare("csv", raw=raw, out=tmp_path / "out", columns=mapping("stars", event_type="what"))
    assert values(tmp_path / "out") == [
        {"rate": 1, "view": 0, "stars": 4.5},
        {"rate": 0, "view": 1},
        {"rate": 1, "view": 0, "stars": 2},
    ]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (
            ["a b", "a-b"],
            "'a-b' of column 'what' is called a_b in rules, which is another value's name too; rename one",
        ),
        (["stars", "view"], "event type 'stars' of column 'what' is called stars in rules"),
        (["view", ""], "line 3: column what is empty"),
        ([f"e{n}" for n in range(300)], "column 'what' has 300 values; event types are at most 256"),
    ],
)
def test_event_types_that_cannot_be_named(tmp_path: Path, types: list[str], expected: str) -> None:
    raw = write_raw(tmp_path, "a.csv", "u,i,t,what,stars", *(f"1,10,{n},{kind},1" for n, kind in enumerate(types)))
    options = {"columns": mapping("stars", event_type="what")}
    assert expected in refusal(tmp_path / "o" / "out", "csv", raw, **options)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_missing_values_are_no_labels(tmp_path: Path, format: str) -> None:
    raw = tmp_path / f"a.{format}"
    if format == "csv":
        lines = ["1,10,1,4,", "1,11,2,,true", "1,12,3,NaN,null", "1,13,4,4,FALSE"]
        write_raw(tmp_path, raw.name, "u,i,t,stars,like", *lines)
    elif format == "jsonl":
        rest = ['"stars":4', '"like":true', '"stars":null', '"stars":4.0,"like":false,"more":{"a":[1]}']
        write_raw(tmp_path, raw.name, *(f'{{"u":1,"i":{10 + n},"t":{n},{r}}}' for n, r in enumerate(rest)))
    else:
        stars, like = pa.array([4.0, None, float("nan"), 4.0]), pa.array([None, True, None, False])
        pq.write_table(
            pa.table({"u": [1] * 4, "i": [10, 11, 12, 13], "t": [1, 2, 3, 4], "stars": stars, "like": like}), raw
        )
    manifest = prepare(format, raw=raw, out=tmp_path / "out", columns=mapping("stars", "like")).manifest
    assert values(tmp_path / "out") == [{"stars": 4}, {"like": 1}, {}, {"stars": 4, "like": 0}]
    labels = label_table(["stars >= 4", "like == 1"], manifest.behaviours)
    codes = [manifest.behaviours.index(behaviour) for behaviour in values(tmp_path / "out")]
    told = [[None if value != value else value for value in labels[code]] for code in codes]
    assert told == [[1, None], [None, 1], [None, None], [1, 0]]


def test_a_value_may_have_another_name_than_its_column(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "a.csv", "u,i,t,is click,a:b", "1,10,1,1,0")
    prepare("csv", raw=raw, out=tmp_path / "out", columns=mapping("click:is click", "other:a:b"))
    assert values(tmp_path / "out") == [{"click": 1, "other": 0}]


def test_buckets_keep_their_lower_edges(tmp_path: Path) -> None:
    watched = [0, 9.99, 10, 29, 30, 1e9, ""]
    raw = write_raw(tmp_path, "a.csv", "u,i,t,watch", *(f"1,{n},{n},{value}" for n, value in enumerate(watched)))
    prepare("csv", raw=raw, out=tmp_path / "out", columns=mapping("watch", buckets=["watch=10,30"]))
    assert [value.get("watch") for value in values(tmp_path / "out")] == [0, 0, 10, 10, 30, 30, None]
    below = write_raw(tmp_path / "b", "a.csv", "u,i,t,watch", "1,1,1,-1")
    message = refusal(tmp_path / "o" / "out", "csv", below, columns=mapping("watch", buckets=["watch=10,30"]))
    assert "line 2: column watch: '-1' is below the lowest bucket, 0 (--buckets)" in message
    prepare("csv", raw=below, out=tmp_path / "c", columns=mapping("watch", buckets=["watch=-5,10"]))
    assert values(tmp_path / "c") == [{"watch": -5}]


@pytest.mark.parametrize("typed", [r"\t", "\t", r"\x09"])
def test_a_tab_as_it_is_typed(tmp_path: Path, typed: str) -> None:
    raw = write_raw(tmp_path, "a.txt", "u\ti\tt", "1\t10\t1")
    prepare("csv", raw=raw, out=tmp_path / "out", columns=mapping(delimiter=typed))
    assert [item for item, *_ in sequences(tmp_path / "out")[1]] == [10]


def test_tsv_by_itself_beside_csv_and_compressed_files(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "a.tsv", "u\ti\tt", "1\t10\t1")
    write_raw(tmp_path / "raw", "b.csv", "u,i,t", "1,11,1")
    write_raw(tmp_path / "raw", "c.tsv.gz", "u\ti\tt", "1\t12\t1")
    prepare("csv", raw=tmp_path / "raw", out=tmp_path / "out", columns=mapping())
    assert [item for item, *_ in sequences(tmp_path / "out")[1]] == [10, 11, 12]


def test_a_file_beside_its_compressed_copy_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "a.csv.gz"):
        write_raw(tmp_path / "raw", name, "u,i,t", "1,10,1")
    message = refusal(tmp_path / "o" / "out", "csv", tmp_path / "raw", columns=mapping())
    assert "a.csv: stands beside a.csv.gz, which would count its events twice; keep one" in message


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    raw = tmp_path / "a.csv"
    raw.write_bytes("u,i,t\ncafé,Größe,1\n".encode(encoding))
    prepare("csv", raw=raw, out=tmp_path / "out", columns=mapping(string_ids=True, encoding=encoding))
    assert sequences(tmp_path / "out") == {"café": [("Größe", {"event": 1.0}, 1)]}


def test_a_wrong_encoding_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "a.csv"
    raw.write_bytes("u,i,t\ncafé,Größe,1\n".encode("latin-1"))
    assert "line 2: Invalid unicode" in refusal(
        tmp_path / "o" / "out", "csv", raw, columns=mapping(string_ids=True)
    )
    options = {"columns": mapping(string_ids=True, encoding="gb18030")}
    raw.write_bytes(b"u,i,t\n\xff\xff,1,1\n")
    assert "is not in the encoding gb18030" in refusal(tmp_path / "o" / "out", "csv", raw, **options)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_partitions_are_columns_where_asked_for(tmp_path: Path, format: str) -> None:
    """The folders' other names stay names; values may be escaped, or missing as Hive writes it."""
    for day, kind in (("2024-01-01", "a%20b"), ("2024-01-02", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "raw" / f"day={day}" / f"r={kind}" / "i=7"
        folder.mkdir(parents=True)
        if format == "csv":
            write_raw(folder, "a.csv", "u,i", "1,10", "1,11")
        elif format == "jsonl":
            write_raw(folder, "a.jsonl", '{"u":1,"i":10}', '{"u":1,"i":11}')
        else:
            pq.write_table(pa.table({"u": [1, 1], "i": [10, 11]}), folder / "a.parquet")
    columns = ColumnMapping(user="u", item="i", timestamp="day", partitions=["day"])
    prepare(format, raw=tmp_path / "raw", out=tmp_path / "out", columns=columns)
    first = 1_704_067_200
    assert [(item, when) for item, _, when in sequences(tmp_path / "out")[1]] == [
        (10, first),
        (11, first),
        (10, first + 86_400),
        (11, first + 86_400),
    ]
    columns = ColumnMapping(user="u", item="i", timestamp="day", event_type="r", partitions=["day", "r"])
    options: dict[str, Any] = {"columns": columns, "on_bad_row": "skip"}
    manifest = prepare(format, raw=tmp_path / "raw", out=tmp_path / "two", **options).manifest
    assert (manifest.behaviours, manifest.skipped_rows.count) == ([{"a_b": 1}], 2)
    columns = ColumnMapping(user="u", item="i", timestamp="x", partitions=["x"])
    message = refusal(tmp_path / "o" / "out", format, tmp_path / "raw", columns=columns)
    assert "lies in no folder x=VALUE; leave out --partition x" in message


def test_several_sources_are_read_one_after_the_other(tmp_path: Path) -> None:
    new, old = (write_raw(tmp_path / name, "a.csv", "u,i,t", f"1,{n},5") for n, name in ((10, "b"), (11, "a")))
    prepare("csv", raw=[new.parent, old], out=tmp_path / "out", columns=mapping())
    assert [item for item, *_ in sequences(tmp_path / "out")[1]] == [10, 11]
    assert "a.csv: is named twice" in refusal(tmp_path / "o" / "out", "csv", [new, new.parent], columns=mapping())


def test_amazon_reviews_of_two_years_together(tmp_path: Path) -> None:
    old = write_raw(tmp_path, "old.csv", "A1,B1,5.0,1373673600")
    new = write_raw(tmp_path, "new.csv", "user_id,parent_asin,rating,timestamp", "A1,B2,3.0,1634275259292")
    prepare("amazon", raw=[old, new], out=tmp_path / "out")
    assert [item for item, *_ in sequences(tmp_path / "out")["A1"]] == ["B1", "B2"]


def test_json_lines_with_blank_and_broken_ones(tmp_path: Path) -> None:
    lines = [
        '{"u":1,"i":10,"t":1,"I":5}',
        "",
        "oops",
        '{"u":1,"i":"11.0","t":"2024-01-01T00:00:00Z"}',
        "[1]",
        '{"u":1}',
    ]
    raw = write_raw(tmp_path, "a.ndjson.gz", *lines)
    prepared = prepare("jsonl", raw=raw, out=tmp_path / "out", columns=mapping(), on_bad_row="skip")
    assert [item for item, *_ in sequences(tmp_path / "out")[1]] == [10, 11]
    assert [line.split(": ")[0] for line in prepared.manifest.skipped_rows.sample] == [
        f"{raw}, line {line}" for line in (3, 5, 6)
    ]


@pytest.mark.parametrize(
    ("behaviours", "options", "expected"),
    [
        ([], {"delimiter": ""}, "--delimiter '': write 1 to 4 characters"),
        ([], {"delimiter": '"'}, "no double quote"),
        ([], {"delimiter": "abcde"}, "write 1 to 4 characters"),
        ([], {"encoding": "klingon"}, "--encoding klingon: no such encoding; there are utf-8"),
        (["is click"], {}, "behaviour=is click: no rule could name this value; give it a name of letters"),
        (["2nd"], {}, "as in behaviour=_2nd:2nd"),
        (["a:x", "a:y"], {}, "--column behaviour=a:y: two behaviour values have one name"),
        (["r"], {"buckets": ["s=1,2"]}, "--buckets s=1,2: write NAME=EDGES, as in watch=10,30,60"),
        (["r"], {"buckets": ["r=2,1"]}, "with ascending lower edges"),
        (["r"], {"buckets": ["r="]}, "with ascending lower edges"),
        (["r"], {"buckets": ["r=1,inf"]}, "with ascending lower edges"),
    ],
)
def test_a_bad_option_is_one_line(behaviours: list[str], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        mapping(*behaviours, **options)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_warnings_are_counted_in_the_manifest(tmp_path: Path) -> None:
    rows = [f"a,x{n},{n},{n / 7}" for n in range(150)]
    rows += [
        "NULL,x1,1e9,0",
        "nan,x1,1e9,0",
        " ,x1,5000000000,0",
        "b,x1,1e9,0",
        "b,x1,1e9,0",
        "b,x1,1e9,1",
        "b,x2,1e9,0",
    ]
    raw = write_raw(tmp_path, "a.csv", "u,i,t,r", *rows, "b,x2,never,0", "b,x2,,0")
    options: dict[str, Any] = {"columns": mapping("r", string_ids=True), "on_bad_row": "skip"}
    manifest = prepare("csv", raw=raw, out=tmp_path / "out", **options).manifest
    assert {warning.kind: warning.count for warning in manifest.warnings} == {
        "skipped_rows": 2,
        "times_in_1970": 150,
        "times_after_2100": 1,
        "no_user": 3,
        "continuous_values": 150,
        "duplicates": 1,
    }
    assert (manifest.num_duplicates, manifest.num_repeats) == (1, 2)
    for warning in manifest.warnings:
        assert f"{warning.count:,}" in warning.message
        assert "\n" not in warning.message
    message = refusal(tmp_path / "o" / "out", "csv", raw, max_skipped=0.012, **options)
    assert "2 rows, 1.3% of all, could not be read and were skipped; allowed are 1.2% (--max-skipped)" in message
    dropped = prepare(
        "csv", raw=raw, out=tmp_path / "d", drop_duplicates=True, max_skipped=0.013, **options
    ).manifest
    assert (dropped.num_events, dropped.num_duplicates) == (manifest.num_events - 1, 0)
    assert [warning.count for warning in dropped.warnings if warning.kind == "dropped_duplicates"] == [1]


def test_the_manifest_tells_where_the_data_came_from(tmp_path: Path) -> None:
    import hashlib

    folder = tmp_path / "raw" / "day=1"
    raw = write_raw(folder, "a.csv", "u,i,t", "1,10,1")
    manifest = prepare(
        "csv", raw=tmp_path / "raw", out=tmp_path / "out", columns=mapping(encoding="latin-1")
    ).manifest
    [record] = manifest.raw_files
    assert (record.file, record.num_bytes) == ("day=1/a.csv", raw.stat().st_size)
    assert record.sha256 == hashlib.sha256(raw.read_bytes()).hexdigest()
    assert manifest.arguments["encoding"] == "latin-1"
    from unigrf_dist import __version__

    assert manifest.version == __version__


def test_a_large_file_is_known_by_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of one byte within a sampled piece, or of the size, is another file."""
    from unigrf_dist.prepare import provenance

    monkeypatch.setattr(provenance, "_WHOLE_BYTES", 10)
    monkeypatch.setattr(provenance, "_PIECE_BYTES", 4)
    content, seen = b"0" * 1000, set()
    for changed in (content, content + b"0", b"1" + content[1:], content[:-1] + b"1"):
        (tmp_path / "a").write_bytes(changed)
        record = provenance._record(tmp_path / "a", "a")
        assert record.sampled
        seen.add(record.sha256)
    assert len(seen) == 4


def test_an_odd_log_against_a_computation_of_its_own(tmp_path: Path) -> None:
    """Event types, missing values, dates with zones, whole floats, bad rows, duplicates: worked out row by row."""
    draw = random.Random(5)
    rows = []
    for n in range(3000):
        user, item = draw.randrange(40), draw.randrange(60)
        shift, second = draw.choice((-5, 0, 9)), draw.randrange(600)
        day = f"2024-03-{1 + draw.randrange(9):02}"
        when = f"{day}T10:{second // 60:02}:{second % 60:02}.{draw.randrange(4)}00{shift:+03}:00"
        stars = draw.choice(("", "1", "4.5", "x" if n % 50 == 0 else "3"))
        rows.append(
            [f"{user}.0", str(item), when, draw.choice(("view", "buy now")), stars, 'a "quote", and\nmore']
        )
    rows += rows[:20]
    with (tmp_path / "odd.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([["u", "i", "t", "what", "stars", "note"], *rows])

    from datetime import datetime

    expected: dict[int, list[tuple[float, int, int, dict[str, float]]]] = defaultdict(list)
    seen: set[tuple[Any, ...]] = set()
    skipped = dropped = 0
    for number, (user, item, when, what, stars, _) in enumerate(rows):
        time = datetime.fromisoformat(when).timestamp()
        key = (user, item, round(time, 3), what, float(stars) if stars not in ("", "x") else stars)
        if stars == "x":
            skipped += 1
        elif key in seen:
            dropped += 1
        else:
            seen.add(key)
            behaviour = {"view": float(what == "view"), "buy_now": float(what == "buy now")}
            behaviour |= {"stars": float(stars)} if stars else {}
            expected[int(float(user))].append((round(time, 3), number, int(item), behaviour))
    columns = mapping("stars", event_type="what")
    manifest = prepare(
        "csv",
        raw=tmp_path / "odd.tsv",
        out=tmp_path / "out",
        columns=columns,
        on_bad_row="skip",
        drop_duplicates=True,
    ).manifest
    assert manifest.skipped_rows.count == skipped > 0
    assert manifest.num_events == sum(map(len, expected.values())) == len(rows) - skipped - dropped
    assert manifest.num_repeats == sum(len(e) - len({item for _, _, item, _ in e}) for e in expected.values())
    assert sequences(tmp_path / "out") == {
        user: [(item, behaviour, int(time)) for time, _, item, behaviour in sorted(events, key=lambda e: e[:2])]
        for user, events in expected.items()
    }

"""Side features: from raw files to codes beside the sequences, and from there into batches."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from tests.prepare.raw_files import refusal, write_raw
from unigrf_dist.data import (
    Dataset,
    EvaluationStream,
    JaggedBatch,
    TrainStream,
    open_dataset,
)
from unigrf_dist.errors import UserError
from unigrf_dist.prepare import buckets, feature_tables, prepare
from unigrf_dist.prepare.columns import column_mapping
from unigrf_dist.prepare.inspect import examine, inspection_table
from unigrf_dist.prepare.source import ColumnMapping
from unigrf_dist.prepare.summary import summary_table
from unigrf_dist.synthetic import synthesize
from unigrf_dist.synthetic.features import GROUP, TASTE

EVENTS = ["u,i,t", "1,10,1", "1,11,2", "2,12,1"]
COLUMNS: dict[str, Any] = {"user": "u", "item": "i", "timestamp": "t"}


def made(tmp_path: Path, *, events: list[str] = EVENTS, **columns: Any) -> Dataset:
    """A data set of ``events``, whose feature files are in ``tmp_path``."""
    raw = write_raw(tmp_path / "raw", "raw.csv", *events)
    mapping = ColumnMapping(**COLUMNS, **columns)
    prepare("csv", raw=raw, out=tmp_path / "out", columns=mapping)
    return open_dataset(tmp_path / "out", verify=True)


def vocabulary(dataset: Dataset, owner: str, name: str) -> list[str | None]:
    """Raw value of every code."""
    file = dataset.path / "features" / f"{owner}-{name}.parquet"
    rows = pq.read_table(file).to_pylist()
    assert [row["code"] for row in rows] == list(range(len(rows)))
    return [row["value"] for row in rows]


def values_of_items(dataset: Dataset, name: str) -> dict[Any, list[str | None]]:
    """Raw item -> its values."""
    codes, known = dataset.item_feature(name), vocabulary(dataset, "item", name)
    assert codes.cardinality == len(known)
    items = dataset.raw_item_ids().to_pylist()
    bounds = range(len(items) + 1) if codes.offsets is None else codes.offsets.tolist()
    return {
        item: [known[code] for code in codes.values[bounds[n] : bounds[n + 1]].tolist()]
        for n, item in enumerate(items)
    }


def values_of_users(dataset: Dataset, name: str) -> list[str | None]:
    """Value of every user, by user id."""
    known, found = vocabulary(dataset, "user", name), {}
    for batch in batches(dataset.with_user_features([name])):
        assert batch.user_features is not None
        assert batch.user_features.shape == (batch.num_users, 1)
        found |= dict(zip(batch.user_ids.tolist(), batch.user_features[:, 0].tolist(), strict=True))
    return [known[found[user]] for user in range(dataset.num_users)]


def batches(dataset: Dataset) -> list[JaggedBatch]:
    stream = TrainStream(
        dataset, global_batch_users=3, max_events=5, rank=0, world_size=1, seed=0, shuffle_users=6
    )
    return list(stream.epoch(0))


def test_movielens_1m_has_genres_years_and_user_attributes(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "ratings.dat", "1::73::5::1", "1::2::3::2", "2::9::3::2")
    movies = "73::Misérables, Les (1995)::Drama|Musical\n2::Jumanji::Adventure\n5::Unseen (1901)::Western\n"
    (tmp_path / "raw" / "movies.dat").write_bytes(movies.encode("latin-1"))
    write_raw(tmp_path / "raw", "users.dat", "1::F::1::10::48067", "2::M::56::16::70072")
    summary = prepare("movielens-1m", raw=tmp_path / "raw", out=tmp_path / "out")
    dataset = open_dataset(tmp_path / "out", verify=True)
    assert values_of_items(dataset, "genre") == {2: ["Adventure"], 9: [], 73: ["Drama", "Musical"]}
    assert values_of_items(dataset, "year") == {2: [None], 9: [None], 73: ["1995"]}
    assert dataset.item_titles().to_pylist() == ["Jumanji", None, "Misérables, Les (1995)"]
    assert values_of_users(dataset, "gender") == ["F", "M"]
    assert values_of_users(dataset, "age") == ["1", "56"]
    assert values_of_users(dataset, "occupation") == ["10", "16"]
    genre, year = dataset.manifest.features[:2]
    assert (genre.cardinality, genre.multi_valued, genre.num_missing) == (4, True, 1)
    assert (year.cardinality, year.multi_valued, year.num_missing) == (2, False, 2)
    assert summary.notes == []


def test_movielens_without_these_files_has_no_features_and_says_so(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.dat", "1::73::5::1")
    summary = prepare("movielens-1m", raw=raw, out=tmp_path / "out")
    assert summary.manifest.features == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "items.parquet",
        "manifest.json",
        "sequences",
        "users.parquet",
    ]
    shown = io.StringIO()
    Console(width=300, file=shown).print(summary_table(summary))
    assert f"no item features: {tmp_path / 'movies.dat'} is not there" in shown.getvalue()
    assert f"no user features: {tmp_path / 'users.dat'} is not there" in shown.getvalue()


def test_movielens_20m_has_genres_and_years(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "ratings.csv", "userId,movieId,rating,timestamp", "1,29,3.5,1", "1,30,3.5,2")
    write_raw(
        tmp_path / "raw", "movies.csv", "movieId,title,genres", '29,"City, The (1995) ",Drama', "30,X (2000),A|B"
    )
    prepare("movielens-20m", raw=tmp_path / "raw", out=tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert values_of_items(dataset, "genre") == {29: ["Drama"], 30: ["A", "B"]}
    assert values_of_items(dataset, "year") == {29: ["1995"], 30: ["2000"]}
    assert dataset.item_titles().to_pylist() == ["City, The (1995)", "X (2000)"]


def test_mapped_csv_files(tmp_path: Path) -> None:
    """Blanks around values do not count, repeated values count once, and columns may be called anything."""
    items = write_raw(tmp_path, "items.csv", "i,raw_id,tags", '10," big ","b; a;b"', "12,,", "99,other,c")
    users = write_raw(tmp_path, "users.csv", "row,u", "x,2", "y,1")
    dataset = made(
        tmp_path,
        item_features=["raw_id", "tags"],
        user_features=["row"],
        separators={"tags": ";"},
        item_file=items,
        user_file=users,
    )
    assert values_of_items(dataset, "raw_id") == {10: ["big"], 11: [None], 12: [None]}
    assert values_of_items(dataset, "tags") == {10: ["a", "b"], 11: [], 12: []}
    assert values_of_users(dataset, "row") == ["y", "x"]
    assert vocabulary(dataset, "item", "tags") == [None, "a", "b"]


def test_a_mapped_parquet_file(tmp_path: Path) -> None:
    table = {"i": [12, 10], "n": [7, -1], "new": [True, None], "tags": [["x", "y"], None], "unused": [0.5, 0.5]}
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    dataset = made(tmp_path, item_features=["n", "new", "tags"], item_file=tmp_path / "items.parquet")
    assert values_of_items(dataset, "n") == {10: ["-1"], 11: [None], 12: ["7"]}
    assert values_of_items(dataset, "new") == {10: [None], 11: [None], 12: ["true"]}
    assert values_of_items(dataset, "tags") == {10: [], 11: [], 12: ["x", "y"]}


def test_users_keep_their_features_however_the_events_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More users than fit into one chunk of either stream; every fifth is not in the file."""
    monkeypatch.setattr(buckets, "_EVENTS_PER_CHUNK", 3000)
    monkeypatch.setattr(feature_tables, "_ROWS_PER_CHUNK", 2048)
    users = np.random.default_rng(0).permutation(9000)
    write_raw(tmp_path, "users.csv", "u,f", *(f"{user},{user % 7}" for user in users if user % 5))
    dataset = made(
        tmp_path,
        events=["u,i,t", *(f"{user},{n},{n}" for user in users for n in range(1 + user % 3))],
        user_features=["f"],
        user_file=tmp_path / "users.csv",
    )
    assert dataset.manifest.features[0].num_missing == 1800
    stream = EvaluationStream(
        dataset.with_user_features(["f"]), split="test", batch_users=700, max_events=9, rank=0, world_size=1
    )
    seen = 0
    for batch in (evaluated.batch for evaluated in stream):
        raw, codes = batch.user_ids, batch.user_features
        assert codes is not None
        assert torch.equal(codes[:, 0], torch.where(raw % 5 == 0, 0, raw % 7 + 1))
        seen += batch.num_users
    assert seen == 3000


def test_batches_hold_the_chosen_user_features_in_the_chosen_order(tmp_path: Path) -> None:
    users = write_raw(tmp_path, "users.csv", "u,a,b", "1,x,p", "2,y,q")
    dataset = made(tmp_path, user_features=["a", "b"], user_file=users)
    (batch,) = batches(dataset.with_user_features(["b", "a"]))
    assert batch.user_features is not None
    assert batch.user_features.tolist() == [[user + 1, user + 1] for user in batch.user_ids.tolist()]
    assert batch.to("cpu").user_features is not None
    (plain,) = batches(dataset)
    assert plain.user_features is None


def test_a_manifest_without_feature_fields_opens(tmp_path: Path) -> None:
    dataset = made(tmp_path)
    file = dataset.path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["features"], manifest["item_features"], manifest["sha256_of_the_rest"]
    file.write_text(json.dumps(manifest))
    assert open_dataset(dataset.path, verify=True).manifest.features_of("item") == {}
    assert batches(open_dataset(dataset.path))


def test_a_truncated_feature_file_is_found(tmp_path: Path) -> None:
    items = write_raw(tmp_path, "items.csv", "i,f", "10,x")
    dataset = made(tmp_path, item_features=["f"], item_file=items)
    for name in ("items.parquet", "item-f.parquet"):
        file = dataset.path / "features" / name
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        with pytest.raises(UserError, match=f"features/{name}: .* bytes, but the manifest says"):
            open_dataset(dataset.path)
        file.write_bytes(content)


def test_synthetic_features_are_the_groups_and_most_tastes(tmp_path: Path) -> None:
    synthesize(tmp_path / "set", num_users=1000, num_items=80, mean_length=8, seed=3, num_tastes=4)
    dataset = open_dataset(tmp_path / "set", verify=True)
    codes = dataset.item_feature(GROUP).values
    assert torch.equal(codes.bincount(), torch.tensor([0, 20, 20, 20, 20]))
    tastes = torch.cat([b.user_features for b in batches(dataset.with_user_features([TASTE]))])  # type: ignore[misc]
    counts = tastes[:, 0].bincount(minlength=5)
    assert counts[0] == dataset.manifest.features_of("user")[TASTE].num_missing
    assert 150 < counts[0] < 250
    assert counts[1:].min() > 150


def test_inspection_lists_the_features(tmp_path: Path) -> None:
    items = write_raw(tmp_path, "items.csv", "i,f", "10,x|y")
    dataset = made(tmp_path, item_features=["f"], separators={"f": "|"}, item_file=items)
    shown = io.StringIO()
    Console(width=200, file=shown).print(inspection_table(examine(dataset)))
    assert "f: 2 values, several each, missing for 66.7%" in shown.getvalue()


@pytest.mark.parametrize(
    ("lines", "columns", "expected"),
    [
        (["i,f", "10,x", "11,y", "10,z"], {}, "items.csv: i 10 stands in rows 1 and 3; keep one"),
        (["i,f", "10,x", "ten,y"], {}, "items.csv, row 2: column i: 'ten' is no integer; fix it"),
        (["i,f", "10,x", ",y"], {}, "items.csv, row 2: column i is empty; fix it"),
        (["i,g", "10,x"], {}, "items.csv: no column 'f'; there are i, g"),
        (["i,f", "10,x,3"], {}, "items.csv: cannot be read"),
        ([], {}, "items.csv: is empty"),
        (None, {}, "items.csv: cannot be read: No such file"),
    ],
    ids=["twice", "no integer", "empty id", "no column", "width", "empty file", "no file"],
)
def test_a_bad_feature_file_is_one_line(
    tmp_path: Path, lines: list[str] | None, columns: dict[str, Any], expected: str
) -> None:
    raw, items = write_raw(tmp_path, "raw.csv", *EVENTS), tmp_path / "items.csv"
    if lines is not None:
        write_raw(tmp_path, "items.csv", *lines)
    mapping = ColumnMapping(**COLUMNS, item_features=["f"], item_file=items, **columns)
    assert expected in refusal(tmp_path / "o" / "out", "csv", raw, columns=mapping)


def test_numbers_that_are_no_classes_and_lists_of_users_are_refused(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv", *EVENTS)
    pq.write_table(pa.table({"i": [10], "u": [1], "price": [0.5], "tags": [["a"]]}), tmp_path / "f.parquet")
    price = ColumnMapping(**COLUMNS, item_features=["price"], item_file=tmp_path / "f.parquet")
    expected = refusal(tmp_path / "o" / "out", "csv", raw, columns=price)
    assert "column 'price' is DOUBLE; a feature is text or a whole number" in expected
    tags = ColumnMapping(**COLUMNS, user_features=["tags"], user_file=tmp_path / "f.parquet")
    expected = refusal(tmp_path / "o" / "out", "csv", raw, columns=tags)
    assert "column 'tags' holds several values; a feature of users has one" in expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"columns": ["item_feature=a b"], "item_features": "f.csv"}, "feature 'a b': a name is made of"),
        ({"columns": ["item_feature=item_id"], "item_features": "f.csv"}, "and _, not item_id; rename"),
        (
            {"columns": ["item_feature=A", "item_feature=a"], "item_features": "f.csv"},
            "feature 'a' is named twice",
        ),
        ({"columns": ["user_feature=a"]}, "name its file by --user-features FILE"),
        ({"columns": [], "user_features": "f.csv"}, "name its columns by --column user_feature=NAME"),
        (
            {"columns": ["item_feature=a"], "item_features": "f.csv", "separators": ["b=|"]},
            "--separator b=|: write NAME=CHARACTERS with NAME one of the features: a",
        ),
        ({"columns": [], "item_features": "f.csv", "format": "amazon"}, "format 'amazon' knows its columns"),
    ],
)
def test_a_bad_option_is_one_line(options: dict[str, Any], expected: str) -> None:
    files = {name: Path(options.pop(name)) for name in ("item_features", "user_features") if name in options}
    with pytest.raises(UserError) as caught:
        column_mapping(
            options.pop("format", "csv"),
            options.pop("columns"),
            string_ids=False,
            time_unit="s",
            delimiter=",",
            **files,
            **options,
        )
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)

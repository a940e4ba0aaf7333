"""Days joined to a data set: the same as one preparation of all, row for row, at the cost of the day."""

from __future__ import annotations

import errno
import fcntl
import shutil
from pathlib import Path
from random import Random

import pytest
import torch

from tests.prepare.raw_files import write_raw
from unigrf_dist.data import Dataset, EvaluationStream, TrainStream, open_dataset
from unigrf_dist.data.histories import UserHistories
from unigrf_dist.data.manifest import sha256
from unigrf_dist.data.split import TimeSplit
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.append import append
from unigrf_dist.prepare.compact import compact
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping

DAYS = 7
COLUMNS = ColumnMapping(user="u", item="i", timestamp="t", behaviours=["stars"])
SMALL = {"row_group_users": 8, "shard_users": 16}


def rows_of_days(*, new_users: bool) -> list[list[tuple[int, ...]]]:
    """Events of a base and seven days as (user, item, stars, time).

    Every day has new items, whose raw ids are larger than all before, and new users if asked for. A tenth of the
    events come days late; many are of one time.
    """
    random, days = Random(5), []
    for day in range(DAYS + 1):
        rows = []
        users = 60 + 5 * day * new_users
        for _ in range(900 if day == 0 else 90):
            late = random.randrange(day + 1) if random.random() < 0.1 else 0
            time = 86_400 * (day - late) + 600 * random.randrange(144)
            rows.append((random.randrange(users), random.randrange(100 + 10 * day), random.randrange(1, 6), time))
        # All ids of a day come up in it, so that one preparation of all orders them as the days do.
        rows += [(random.randrange(users), item, 5, 86_400 * day) for item in range(90 + 10 * day, 100 + 10 * day)]
        rows += [(user, day, 1, 86_400 * day) for user in range(users - 5, users) if new_users]
        days.append(rows)
    days[0] += [(user, user, 1 + user % 5, 0) for user in range(100 - 10)]
    days[0] = [(user % 60, *others) for user, *others in days[0]]
    return days


def write_days(folder: Path, days: list[list[tuple[int, ...]]]) -> list[Path]:
    return [
        write_raw(folder, f"day-{n}.csv", "u,i,stars,t", *(",".join(map(str, row)) for row in rows))
        for n, rows in enumerate(days)
    ]


def grown_and_whole(folder: Path, *, new_users: bool) -> tuple[Dataset, Dataset]:
    """A base and seven days, and one preparation of all."""
    raws = write_days(folder / "raw", rows_of_days(new_users=new_users))
    prepare("csv", raw=raws[0], out=folder / "grown", columns=COLUMNS, **SMALL)
    base = {file: sha256(file) for file in (folder / "grown").rglob("*.parquet")}
    for raw in raws[1:]:
        append("csv", raw=raw, into=folder / "grown", shard_users=16)
    assert {file: sha256(file) for file in base} == base
    prepare("csv", raw=raws, out=folder / "whole", columns=COLUMNS, **SMALL)
    return open_dataset(folder / "grown", verify=True), open_dataset(folder / "whole")


def equal_batches(left: TrainStream | EvaluationStream, right: TrainStream | EvaluationStream) -> bool:
    pairs = zip(
        left.epoch(0) if isinstance(left, TrainStream) else left,
        right.epoch(0) if isinstance(right, TrainStream) else right,
        strict=True,
    )
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in ((getattr(a, "batch", a), getattr(b, "batch", b)) for a, b in pairs)
        for name in ("item_ids", "behaviours", "timestamps", "offsets", "user_ids")
    )


def train_stream(dataset: Dataset, **changes: int) -> TrainStream:
    sizes = {"global_batch_users": 7, "max_events": 30, "partitions": 4, "shuffle_users": 20}
    return TrainStream(dataset, rank=0, world_size=1, seed=3, **(sizes | changes))


def evaluation_stream(dataset: Dataset) -> EvaluationStream:
    return EvaluationStream(dataset, split="test", batch_users=9, max_events=20, rank=0, world_size=1)


def test_a_base_and_seven_days_give_the_batches_of_one_preparation(tmp_path: Path) -> None:
    grown, whole = grown_and_whole(tmp_path, new_users=False)
    assert len(grown.manifest.days) == DAYS
    assert len({delta.shard for delta in grown.manifest.deltas}) == 4
    assert equal_batches(train_stream(grown), train_stream(whole))
    assert equal_batches(evaluation_stream(grown), evaluation_stream(whole))
    chunks = {"max_events": 3, "chunk_context": 2}
    assert equal_batches(train_stream(grown, **chunks), train_stream(whole, **chunks))
    middle = (whole.manifest.first_timestamp + whole.manifest.last_timestamp) // 2
    late = [each.with_split(TimeSplit(middle, middle + 1)) for each in (grown, whole)]
    assert equal_batches(*map(train_stream, late))
    assert equal_batches(*map(evaluation_stream, late))
    assert torch.equal(late[0].training_counts(), late[1].training_counts())


def test_new_users_and_items_come_behind_and_compaction_makes_the_files_of_one_preparation(tmp_path: Path) -> None:
    grown, whole = grown_and_whole(tmp_path, new_users=True)
    for name in (
        "num_users",
        "num_items",
        "num_events",
        "num_training_events",
        "num_training_only_users",
        "behaviours",
        "behaviour_counts",
        "first_timestamp",
        "last_timestamp",
    ):
        assert getattr(grown.manifest, name) == getattr(whole.manifest, name), name
    assert sum(day.num_users for day in grown.manifest.days) > 20
    assert torch.equal(grown.training_counts(), whole.training_counts())
    assert grown.raw_item_ids().equals(whole.raw_item_ids())
    everyone = torch.randperm(grown.num_users).numpy()
    ours, theirs = (UserHistories(each).read(everyone) for each in (grown, whole))
    for name in ("user_ids", "offsets", "item_ids", "behaviours", "timestamps"):
        assert (getattr(ours, name) == getattr(theirs, name)).all(), name
    assert UserHistories(grown).raw_ids().equals(UserHistories(whole).raw_ids())
    assert equal_batches(evaluation_stream(grown), evaluation_stream(whole))
    compacted = compact(tmp_path / "grown", shard_users=16).manifest
    assert [shard.sha256 for shard in compacted.shards] == [shard.sha256 for shard in whole.manifest.shards]
    assert compacted.items.sha256 == whole.manifest.items.sha256
    assert compacted.users.sha256 == whole.manifest.users.sha256
    assert compacted.num_repeats == whole.manifest.num_repeats
    kept = {path.relative_to(tmp_path / "grown").parts[0] for path in (tmp_path / "grown").rglob("*")}
    assert kept == {".lock", "manifest.json", "compact-00007"}
    with pytest.raises(UserError, match="no days were appended since"):
        compact(tmp_path / "grown")


def test_the_old_ids_and_their_fingerprint_stay(tmp_path: Path) -> None:
    """From 200 to 201 items; the raw id of the new one is the smallest."""
    base = write_raw(tmp_path, "base.csv", "u,i,t,stars", *(f"1,{i},{i},1" for i in range(1, 201)))
    day = write_raw(tmp_path, "day.csv", "u,i,t,stars", "1,0,300,1", "0,5,300,9")
    prepare("csv", raw=base, out=tmp_path / "set", columns=COLUMNS)
    before = open_dataset(tmp_path / "set")
    append("csv", raw=day, into=tmp_path / "set")
    after = open_dataset(tmp_path / "set")
    assert after.raw_item_ids().to_pylist() == [*range(1, 201), 0]
    assert after.catalogue_fingerprint(200) == before.catalogue_fingerprint()
    assert after.manifest.behaviours == [{"stars": 1.0}, {"stars": 9.0}]
    assert UserHistories(after).raw_ids().to_pylist() == [1, 0]


def test_features_of_what_is_new_come_behind(tmp_path: Path) -> None:
    items = write_raw(tmp_path, "items.csv", "i,brand,tags,name", "5,m,a|c,Five", "6,b,c,")
    users = write_raw(tmp_path, "users.csv", "u,city", "1,rome")
    columns = ColumnMapping(
        user="u",
        item="i",
        timestamp="t",
        title="name",
        event_type="kind",
        item_features=["brand", "tags"],
        user_features=["city"],
        separators={"tags": "|"},
        item_file=items,
        user_file=users,
    )
    base = write_raw(tmp_path, "base.csv", "u,i,t,kind", "1,5,1,view", "1,6,2,buy")
    prepare("csv", raw=base, out=tmp_path / "set", columns=columns)
    more = write_raw(tmp_path, "more.csv", "i,brand,tags,name", "5,other,z,V", "7,a,b|c,Seven", "8,m,,Eight")
    cities = write_raw(tmp_path, "cities.csv", "u,city", "0,oslo")
    day = write_raw(tmp_path, "day.csv", "u,i,t,kind", "0,8,9,like", "1,7,9,view", "2,7,9,buy")
    append("csv", raw=day, into=tmp_path / "set", columns=ColumnMapping(item_file=more, user_file=cities))
    again = write_raw(tmp_path, "again.csv", "u,i,t,kind", "1,9,10,view")
    append("csv", raw=again, into=tmp_path / "set")

    def check() -> None:
        dataset = open_dataset(tmp_path / "set", verify=True).with_user_features(["city"])
        brands, tags = dataset.item_feature("brand"), dataset.item_feature("tags")
        assert dataset.feature_values("item", "brand").to_pylist() == [None, "b", "m", "a"]
        assert brands.values.tolist() == [2, 1, 3, 2, 0]
        assert dataset.feature_values("item", "tags").to_pylist() == [None, "a", "c", "b"]
        assert tags.values.tolist() == [1, 2, 2, 2, 3]
        assert tags.offsets.tolist() == [0, 2, 3, 5, 5, 5]
        users = UserHistories(dataset)
        assert users.raw_ids().to_pylist() == [1, 0, 2]
        assert users.read(torch.arange(3).numpy()).user_features.tolist() == [[1], [2], [0]]
        assert dataset.manifest.behaviours == [
            {"buy": 1.0, "view": 0.0, "like": 0.0},
            {"buy": 0.0, "view": 1.0, "like": 0.0},
            {"buy": 0.0, "view": 0.0, "like": 1.0},
        ]
        missing = {each.name: each.num_missing for each in dataset.manifest.features}
        assert missing == {"brand": 1, "tags": 2, "city": 1}
        assert dataset.item_titles().to_pylist() == ["Five", None, "Seven", "Eight", None]

    check()
    compact(tmp_path / "set")
    check()


def snapshot(folder: Path) -> dict[str, str]:
    return {str(file): sha256(file) for file in folder.rglob("*") if file.is_file() and file.name != ".lock"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    raw = write_raw(tmp_path, "base.csv", "u,i,t,stars", "1,5,1,1", "1,6,2,2")
    prepare("csv", raw=raw, out=tmp_path / "set", columns=COLUMNS)
    return tmp_path / "set"


def test_a_refused_or_failed_append_leaves_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(base)
    good = write_raw(tmp_path, "good.csv", "u,i,t,stars", "2,5,9,1")
    bad = write_raw(tmp_path, "bad.csv", "u,i,t,stars", "2,5,nine,1")
    refusals = {
        "has the events of this file already, in its base": {"raw": tmp_path / "base.csv"},
        "line 2: column t": {"raw": bad},
        "was prepared with format: csv, not parquet": {"raw": good, "format": "parquet"},
        "was prepared with column user: u, not user": {"raw": good, "columns": ColumnMapping(user="user")},
        "was prepared with time_unit: s, not ms": {"raw": good, "columns": ColumnMapping(time_unit="ms")},
        "was prepared with ids: whole numbers, not text": {"raw": good, "columns": ColumnMapping(string_ids=True)},
        "was prepared with min_events: 1, not 3": {"raw": good, "min_events": 3},
    }
    for told, options in refusals.items():
        with pytest.raises(UserError) as caught:
            append(**{"format": "csv", "into": base, **options})
        assert told in str(caught.value)
        assert snapshot(base) == before

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place in ("day_writer.pq.write_table", "append.write_manifest", "user_index.UserIndexWriter.add"):
        with monkeypatch.context() as patch:
            patch.setattr(f"unigrf_dist.prepare.{place}", full)
            with pytest.raises(UserError, match=r"set: the disk is full"):
                append("csv", raw=good, into=base)
        assert snapshot(base) == before

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unigrf_dist.prepare.append.write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        append("csv", raw=good, into=base)
    assert snapshot(base) == before


def test_what_a_killed_append_left_is_in_nobodys_way(base: Path, tmp_path: Path) -> None:
    good = write_raw(tmp_path, "good.csv", "u,i,t,stars", "2,5,9,1")
    for left in ("days/00001", "days/00001.partial"):
        shutil.copytree(base / "sequences", base / left)
    assert open_dataset(base, verify=True).num_users == 1
    append("csv", raw=good, into=base)
    assert open_dataset(base, verify=True).num_users == 2
    assert not (base / "days" / "00001.partial").exists()


def test_two_appends_at_once_are_refused(base: Path, tmp_path: Path) -> None:
    good = write_raw(tmp_path, "good.csv", "u,i,t,stars", "2,5,9,1")
    with (base / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for action in (lambda: append("csv", raw=good, into=base), lambda: compact(base)):
            with pytest.raises(UserError, match="is being appended to or compacted"):
                action()
    append("csv", raw=good, into=base)


def test_a_damaged_delta_is_told(base: Path, tmp_path: Path) -> None:
    append("csv", raw=write_raw(tmp_path, "good.csv", "u,i,t,stars", "1,5,9,1"), into=base)
    delta = base / "days" / "00001" / "delta-00000.parquet"
    content = bytearray(delta.read_bytes())
    content[40] ^= 1
    delta.write_bytes(content)
    with pytest.raises(UserError, match="its deltas: its SHA-256 is not the manifest's"):
        UserHistories(open_dataset(base)).read(torch.arange(1).numpy())

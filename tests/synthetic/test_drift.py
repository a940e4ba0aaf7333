"""Raw files of days: what appears when, and that the world drifts as much as it was asked to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from unigrf_dist.errors import UserError
from unigrf_dist.synthetic import synthesize_days

DAY, START = 86_400, 1_577_836_800


def read(file: Path) -> dict[str, np.ndarray]:
    return {name: column.to_numpy() for name, column in zip(*_named(file), strict=True)}


def _named(file: Path) -> tuple[list[str], list]:
    table = pq.read_table(file)
    return table.column_names, table.columns


def drawn(out: Path, drift: float) -> list[dict[str, np.ndarray]]:
    counts = synthesize_days(out, days=3, drift=drift, num_users=3000, num_items=300, mean_length=20)
    files = [read(out / name) for name in counts]
    assert [len(each["user_id"]) for each in files] == list(counts.values())
    return files


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    return drawn(tmp_path_factory.mktemp("still") / "out", 0.0)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    return drawn(tmp_path_factory.mktemp("moving") / "out", 0.3)


def shares(day: dict[str, np.ndarray]) -> np.ndarray:
    """Share of every item among the events."""
    return np.bincount(day["item_id"], minlength=301) / len(day["item_id"])


def test_items_and_users_come_up_day_by_day_and_times_are_of_the_day(still: list[dict[str, np.ndarray]]) -> None:
    items: set[int] = set()
    users: set[int] = set()
    for day, events in enumerate(still):
        assert events["timestamp"].min() >= START + ((day - 1) if day else -30) * DAY
        assert events["timestamp"].max() < START + day * DAY
        new_users, new_items = set(events["user_id"]) - users, set(events["item_id"]) - items
        if day:
            assert len(new_users) == 30
            assert len(new_items) == 3
        users, items = users | new_users, items | new_items
    assert set(np.unique(still[0]["rating"])) == {1, 2, 3, 4, 5}


def test_no_user_sees_an_item_again_soon(still: list[dict[str, np.ndarray]]) -> None:
    events = {name: np.concatenate([each[name] for each in still]) for name in still[0]}
    for user in range(1, 200):
        of_user = events["user_id"] == user
        latest = events["item_id"][of_user][np.argsort(events["timestamp"][of_user], kind="stable")][-65:]
        assert len(set(latest)) == len(latest)


def test_drift_moves_what_is_popular(
    still: list[dict[str, np.ndarray]], moving: list[dict[str, np.ndarray]]
) -> None:
    """Half of the L1 distance between the shares of the base and of the last day; in ``still`` it is noise."""
    noise, moved = (np.abs(shares(each[0]) - shares(each[3])).sum() / 2 for each in (still, moving))
    assert moved > noise + 0.05


def test_sizes_out_of_range_are_refused(tmp_path: Path) -> None:
    for options, told in (({"drift": 1.5}, "drift in"), ({"drift": 0.1, "num_items": 200}, "at least 256 here")):
        with pytest.raises(UserError, match=told):
            synthesize_days(tmp_path / "out", days=1, **options)
    assert not (tmp_path / "out").exists()

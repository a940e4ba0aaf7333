"""Statistics of a data set, on users that can be counted by hand."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.data.small_sets import Event, write_users
from unigrf_dist.data.manifest import Manifest
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.inspect import Inspection, behaviour_shares, draw_picture, examine, inspection_table

USERS: list[list[Event]] = [
    [(0, 4, 0), (1, 4, 10), (2, 3, 20), (3, 0, 480)],
    [(3, 1, 5)],
    *([[(0, 4, 7), (1, 1, 8)]] * 8),
]


@pytest.fixture
def inspection(tmp_path: Path) -> Inspection:
    return examine(write_users(tmp_path / "set", USERS))


def test_lengths_items_and_times_are_counted(inspection: Inspection) -> None:
    assert inspection.lengths.tolist() == [4, 1, *[2] * 8]
    # Of the first user, items 0 and 1 are for training.
    assert inspection.item_counts.tolist() == [9, 9, 0, 1]
    # 48 spans of 481 / 48 seconds.
    assert inspection.time_counts.tolist() == [19, 1, *[0] * 45, 1]


def test_shares_are_of_all_events(inspection: Inspection) -> None:
    assert dict(behaviour_shares(inspection.manifest)) == pytest.approx(
        {"rating = 1": 1 / 21, "rating = 2": 9 / 21, "rating = 3": 0, "rating = 4": 1 / 21, "rating = 5": 10 / 21}
    )


def test_flags_are_shown_only_where_set(inspection: Inspection) -> None:
    behaviours = [{"click": 0.0, "like": 0.0}, {"click": 1.0, "like": 0.0}, {"click": 1.0, "like": 1.0}]
    flags: Manifest = inspection.manifest.model_copy(
        update={"behaviours": behaviours, "behaviour_counts": [7, 10, 4]}
    )
    assert dict(behaviour_shares(flags)) == pytest.approx({"click = 1": 14 / 21, "like = 1": 4 / 21})


def test_the_table_shows_the_counts(inspection: Inspection) -> None:
    text = io.StringIO()
    Console(file=text, width=120).print(inspection_table(inspection))
    lines = [" ".join(line.replace("│", " ").split()) for line in text.getvalue().splitlines()]
    for line in (
        "users 10",
        "events 21",
        "of them for training 19",
        "users too short to hold out 9 (training only)",
        "events per user, mean 2.1",
        "median 2",
        "most 4",
        "users of 1 1 10.0% ███",
        "users of 2 to 3 8 80.0% ████████████████████████",
        "rating = 2 42.9% █████████████",
    ):
        assert line in lines


def test_the_picture_is_a_png(inspection: Inspection, tmp_path: Path) -> None:
    file = draw_picture(inspection, tmp_path / "picture.png")
    assert file.read_bytes().startswith(b"\x89PNG\r\n")


def test_a_picture_that_cannot_be_written(inspection: Inspection, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"picture\.png: cannot be written"):
        draw_picture(inspection, tmp_path / "file" / "picture.png")

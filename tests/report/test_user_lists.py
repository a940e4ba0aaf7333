"""Five users of the report: their latest events and the lists of the run, with titles where items have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_sets import distinct_users, write_users
from tests.serve.drawn_run import write_drawn_run
from unigrf_dist.data import open_dataset
from unigrf_dist.report import write_report
from unigrf_dist.report.user_lists import read_user_lists
from unigrf_dist.serve import Recommender

USERS = distinct_users([3, 9, 1, 14, 12, 5, 2, 7, 6])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_users(tmp_path / "data", USERS, titled=True)
    write_drawn_run(tmp_path / "run", open_dataset(tmp_path / "data"))
    return tmp_path / "run"


def test_users_from_first_to_last_have_their_own_events_and_lists(run: Path) -> None:
    shown = read_user_lists(run)
    assert [int(each.user) for each in shown.users] == [100, 102, 104, 106, 108]
    recommender = Recommender(run)
    for each in shown.users:
        events = USERS[int(each.user) - 100]
        newest = [item for item, _, _ in reversed(events)][:10]
        # Half of the items have a title, which ends in the raw id here.
        assert [event.item.split()[-1] for event in each.history] == [str(10 * item) for item in newest]
        assert each.num_events == len(events)
        found = recommender.recommend(int(each.user), k=10)
        assert [entry.item.split()[-1] for entry in each.entries] == [str(entry.item) for entry in found]
        assert [entry.tasks[0] for entry in each.entries] == [
            f"{100 * entry.probabilities['rating >= 4']:.1f}%" for entry in found
        ]
    assert any(entry.item.startswith("Film ") for each in shown.users for entry in each.entries)


def test_the_page_shows_them_and_says_why_it_can_not(run: Path, tmp_path: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert "Five users and their lists" in page
    assert "User 104" in page
    (run / "checkpoints" / "best").unlink()
    (run / "checkpoints" / "latest").unlink()
    page = write_report(run).read_text(encoding="utf-8")
    assert "No lists can be shown" in page
    assert "User 104" not in page

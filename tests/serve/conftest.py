"""Runs that the tests of serving share: two versions of one model, and one that knows when it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_sets import distinct_users, write_users
from tests.serve.stored_run import store_runs
from tests.spawn import run_ranks

USERS = distinct_users([3, 9, 1, 4, 12, 5, 2, 7, 6, 10] * 4)
RUNS = {
    "old": (3, {}),
    "new": (4, {}),
    "visible": (
        5,
        {"model__backbone": "llama", "model__query_time_visible": True, "model__behaviours_carry_items": True},
    ),
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the runs ``old``, ``new`` and ``visible``, over one data set of ``USERS``."""
    folder = tmp_path_factory.mktemp("runs")
    write_users(folder / "data", USERS, titled=True)
    run_ranks(1, store_runs, str(folder), str(folder / "data"), RUNS)
    return folder

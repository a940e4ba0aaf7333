"""Which processes are ranks: what a rank starts is none, and its end ends nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from unigrf_dist.ranks import lost
from unigrf_dist.ranks.lost import LostRanks, ranks_below

# A child between fork and exec has the command line of its parent.
FORKS = "import os, sys, time\nif os.fork() == 0:\n    time.sleep(0.5)\n    os._exit(0)\ntime.sleep(60)"
SLEEPS = "import time; time.sleep(60)"


@pytest.fixture
def rank() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", FORKS, "--local_rank=0"])
    yield process
    process.kill()
    process.wait()


def look_for(seconds: float, watch: LostRanks) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        watch.look()
        time.sleep(0.02)


def test_the_end_of_what_a_rank_starts_ends_no_rank(
    rank: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "_GRACE_SECONDS", 0.2)
    watch = LostRanks(os.getpid())
    look_for(1.5, watch)
    assert [process.pid for process in ranks_below(os.getpid())] == [rank.pid]
    assert watch.number == 0
    assert rank.poll() is None


def test_a_rank_that_outlives_another_is_ended_also_where_it_is_stopped(
    rank: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "_GRACE_SECONDS", 0.2)
    other = subprocess.Popen([sys.executable, "-c", SLEEPS, "--local_rank=1"])
    watch = LostRanks(os.getpid())
    look_for(0.5, watch)
    rank.send_signal(19)  # SIGSTOP
    other.kill()
    other.wait()
    look_for(1.5, watch)
    assert watch.number == 1
    assert rank.wait(5) == -9

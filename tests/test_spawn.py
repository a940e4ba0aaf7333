"""The helper of the multi-rank tests itself: results by rank, and no failure that goes unseen."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch
import torch.distributed as dist

from tests.spawn import RanksFailedError, run_ranks


def sum_over_ranks(value: int) -> torch.Tensor:
    total = torch.tensor([value * (dist.get_rank() + 1)])
    dist.all_reduce(total)
    return total


def environment_of_a_rank() -> tuple[str, ...]:
    return tuple(os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "ASKED"))


def fail_on(rank: int) -> None:
    if dist.get_rank() == rank:
        raise KeyError("the reason")
    dist.barrier()


def die_on(rank: int) -> None:
    print("last words", flush=True)
    if dist.get_rank() == rank:
        os.abort()


def die_after_the_work() -> int:
    if dist.get_rank() == 0:
        threading.Timer(0.5, os.abort).start()
    else:
        time.sleep(2)  # rank 0 has its result by now and waits for this one
    return dist.get_rank()


def hang() -> None:
    time.sleep(600)


def test_ranks_reduce_over_each_other() -> None:
    assert [int(total) for total in run_ranks(3, sum_over_ranks, 7)] == [42, 42, 42]


def test_ranks_have_the_callers_environment_and_their_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKED", "yes")
    assert run_ranks(2, environment_of_a_rank) == [("0", "0", "2", "2", "yes"), ("1", "1", "2", "2", "yes")]


def test_a_raising_rank_is_named_with_its_traceback() -> None:
    with pytest.raises(RanksFailedError, match=r"(?s)rank 1 raised:.*fail_on.*KeyError: 'the reason'"):
        run_ranks(2, fail_on, 1)


def test_a_dead_rank_is_named_with_its_output() -> None:
    with pytest.raises(RanksFailedError, match=r"(?s)rank 0 ended with status -6.*last words"):
        run_ranks(2, die_on, 0)


def test_a_rank_that_dies_after_its_work_is_not_taken_for_a_good_one() -> None:
    with pytest.raises(RanksFailedError, match="rank 0 ended with status -6"):
        run_ranks(2, die_after_the_work)


def test_a_hanging_rank_is_ended_and_shows_where_it_hung() -> None:
    with pytest.raises(RanksFailedError, match=r"(?s)rank 0 ended with status -9.*in hang"):
        run_ranks(1, hang, timeout_seconds=6)

"""Prefetching: order, errors in their position, bounded depth, no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from unigrf_dist.data.prefetch import prefetched


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def test_items_come_in_order() -> None:
    assert list(prefetched(range(100), 3)) == list(range(100))


def test_an_error_comes_where_its_item_would_have() -> None:
    def breaking() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("gone")

    items = prefetched(breaking(), 5)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(items)


def test_it_runs_ahead_but_no_further_than_asked() -> None:
    made = []

    def counting() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    items = prefetched(counting(), 2)
    assert next(items) == 0
    # Two are queued, a third is made and waits for room.
    assert wait_until(lambda: len(made) == 4)
    time.sleep(0.05)
    assert len(made) == 4
    items.close()  # type: ignore[attr-defined]


def test_an_abandoned_iterator_ends_its_thread() -> None:
    items = prefetched(iter(int, 1), 2)
    next(items)
    assert prefetch_threads()
    items.close()  # type: ignore[attr-defined]
    assert wait_until(lambda: not prefetch_threads())

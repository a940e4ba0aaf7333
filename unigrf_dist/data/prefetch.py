"""Run an iterator ahead of its consumer, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def prefetched(source: Iterable[T], depth: int) -> Iterator[T]:
    """The items of ``source``, up to ``depth`` of them prepared ahead in a thread.

    An error of the source is raised where its item would have come. Closing the iterator, or dropping it, ends
    the thread.

    Args:
        source: iterated in the thread; must not share state with the consumer.
        depth: capacity of the queue, at least 1.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    abandoned = threading.Event()

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in source:
                ready.put(item)
                if abandoned.is_set():
                    return
        except BaseException as raised:
            error = raised
        ready.put(_End(error))

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        abandoned.set()
        while thread.is_alive():
            # The thread may be waiting for room.
            try:
                ready.get_nowait()
            except queue.Empty:
                thread.join(timeout=0.01)

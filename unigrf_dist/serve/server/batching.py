"""Requests that wait together are answered together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

import torch

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Overloaded(Exception):
    """As many requests wait as may wait."""


class Batcher(Generic[Asked, Answer]):
    """Threads that take what waits, as much as there is up to a limit, and never wait for more to come.

    Under no load a request is answered alone and at once; the longer an answer takes, the more of them are
    computed together.

    Args:
        answer: answers to some requests, in their order; an exception in place of an answer is that request's.
        max_batch: requests answered together.
        max_waiting: requests that may wait.
        threads: threads that answer; each computes on one core.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Answer | Exception]],
        *,
        max_batch: int,
        max_waiting: int,
        threads: int,
    ) -> None:
        self._answer, self._max_batch, self._max_waiting = answer, max_batch, max_waiting
        self._waiting: queue.SimpleQueue[tuple[Asked, Future[Answer]] | None] = queue.SimpleQueue()
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name=f"answers-{n}") for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def num_waiting(self) -> int:
        """Requests that wait now."""
        return self._waiting.qsize()

    def submit(self, asked: Asked) -> Future[Answer]:
        """The answer to come.

        Raises:
            Overloaded: too many wait, or this has been closed.
        """
        if self._closed or self._waiting.qsize() >= self._max_waiting:
            raise Overloaded
        future: Future[Answer] = Future()
        self._waiting.put((asked, future))
        return future

    def close(self) -> None:
        """Answer what waits, take nothing more, and end the threads."""
        self._closed = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        torch.set_num_threads(1)
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < self._max_batch:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._waiting.put(None)
                    break
                batch.append(following)
            self._resolve(batch)

    def _resolve(self, batch: list[tuple[Asked, Future[Answer]]]) -> None:
        # One whose client has gone is not computed.
        wanted = [(asked, future) for asked, future in batch if future.set_running_or_notify_cancel()]
        try:
            answers = self._answer([asked for asked, _ in wanted])
        except Exception as error:
            answers = [error] * len(wanted)
        for (_, future), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

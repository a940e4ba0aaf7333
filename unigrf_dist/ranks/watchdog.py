"""When ranks wait too long: every rank says in one line who is missing, and leaves its stack in the run's folder.

Each rank has a thread that writes a sign of life into the store every second. A rank that was stopped, or whose
host was cut off, writes none; one that hangs writes where it stands. The thread also works where the main thread
waits in a collective, on a GPU as well.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from torch.distributed import Store

from unigrf_dist.ranks.progress import last_reached

_SIGN = "unigrf/alive/{}"
_EVERY_SECONDS = 1.0
# Two looks at the signs of life, this long apart, tell who still gives them.
_LOOK_SECONDS = 2.5
_ANSWER_SECONDS = 1.0
_EXIT_STATUS = 1


class _Sign(NamedTuple):
    """A rank's sign of life: its number, the host, how many points the rank has reached, the last one, its age."""

    beat: int
    host: str
    number: int
    where: str
    seconds: float


class Watchdog:
    """Ends this rank when its main thread has reached nothing new for too long.

    Args:
        store: a connection of its own to the ranks' store: a thread must not share the main thread's.
        rank: this rank.
        world_size: number of ranks.
        timeout_seconds: how long nothing new may be reached.
        stacks: folder for what the threads of each rank were doing.
    """

    def __init__(self, store: Store, rank: int, world_size: int, *, timeout_seconds: float, stacks: Path) -> None:
        self._store, self._rank, self._world_size = store, rank, world_size
        self._timeout, self._stacks = timeout_seconds, stacks
        self._beat = 0
        self._told = threading.Lock()

    def start(self) -> None:
        """Begin to watch, until the process ends."""
        threading.Thread(target=self._watch, name="rank watch", daemon=True).start()

    def end(self, reason: str) -> None:
        """Say who is missing and end the process; does not return."""
        with self._told:
            self._dump_stacks()
            sys.stderr.write(f"{self._prefix()}error: {reason}: {self._who()}; stacks: {self._stacks}\n")
            sys.stderr.flush()
            os._exit(_EXIT_STATUS)

    def _watch(self) -> None:
        while True:
            # Where rank 0 was stopped, writing to its store may block: then nothing is left to do but to wait.
            beating = threading.Thread(target=self._give_sign, daemon=True)
            beating.start()
            beating.join(_ANSWER_SECONDS)
            waited = time.monotonic() - last_reached().since
            if waited > self._timeout:
                self.end(f"nothing new for {waited:.0f} s, since {last_reached().where}")
            time.sleep(_EVERY_SECONDS)

    def _give_sign(self) -> None:
        at = last_reached()
        self._beat += 1
        sign = _Sign(self._beat, socket.gethostname(), at.number, at.where, time.monotonic() - at.since)
        try:
            self._store.set(_SIGN.format(self._rank), json.dumps(sign))
        except RuntimeError:
            return  # rank 0 is gone; the main thread learns of it

    def _who(self) -> str:
        """Which ranks do not answer; else which one has come least far."""
        before = self._look()
        if before:
            time.sleep(_LOOK_SECONDS)
        after = before and self._look()
        if not after:
            return "rank 0, which keeps the store, does not answer"
        silent = [
            rank
            for rank in range(self._world_size)
            if rank != self._rank and (rank not in after or after[rank].beat == before.get(rank, after[rank]).beat)
        ]
        if silent:
            named = [f"{rank} (host {after[rank].host})" if rank in after else f"{rank}" for rank in silent]
            return f"no sign of life from rank {', '.join(named)}"
        least = min(after, key=lambda rank: (after[rank].number, rank))
        sign = after[least]
        return f"all ranks are alive; rank {least} (host {sign.host}) is the furthest behind, at {sign.where}"

    def _look(self) -> dict[int, _Sign]:
        """The last sign of each rank that has given one; empty where the store does not answer."""
        found: dict[int, _Sign] = {}

        def read() -> None:
            for rank in range(self._world_size):
                key = _SIGN.format(rank)
                if self._store.check([key]):
                    found[rank] = _Sign(*json.loads(self._store.get(key)))

        def read_or_nothing() -> None:
            try:
                read()
            except RuntimeError:
                found.clear()

        self._give_sign_aside()
        reader = threading.Thread(target=read_or_nothing, daemon=True)
        reader.start()
        reader.join(_ANSWER_SECONDS)
        return {} if reader.is_alive() else found

    def _give_sign_aside(self) -> None:
        """Others may be looking at this rank at the same time."""
        giver = threading.Thread(target=self._give_sign, daemon=True)
        giver.start()
        giver.join(_ANSWER_SECONDS)

    def _dump_stacks(self) -> None:
        try:
            self._stacks.mkdir(parents=True, exist_ok=True)
            with (self._stacks / f"rank-{self._rank:05d}.txt").open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError:
            return  # the line on the terminal says what is needed most

    def _prefix(self) -> str:
        return f"[rank {self._rank}] " if self._rank else ""


_watchdog: Watchdog | None = None


def watch(watchdog: Watchdog) -> None:
    """Start this process's watchdog."""
    global _watchdog
    _watchdog = watchdog
    watchdog.start()


def end_if_cut_off(error: BaseException) -> None:
    """End the process with one line if ``error`` says that other ranks are gone or silent; else return."""
    text = str(error).lower()
    # Neither gloo nor NCCL has an exception of its own for this.
    broken = (
        "pair closure",
        "connection closed",
        "connection reset",
        "timed out",
        "broken pipe",
        "remote process",
    )
    lost = isinstance(error, RuntimeError) and any(word in text for word in broken)
    if _watchdog is not None and lost:
        _watchdog.end(f"the connection to other ranks broke at {last_reached().where}")

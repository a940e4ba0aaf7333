"""Ranks of this machine that end before the others: the others are ended soon after, also if they are stopped.

The deepspeed launcher asks them to end and then waits half a minute, since a stopped process hears nothing.
"""

from __future__ import annotations

import time

import psutil

# Ranks that end together do so within less; those that end on an error of their own say so within this.
_GRACE_SECONDS = 5.0


class LostRanks:
    """Watches the ranks below a process.

    Args:
        launcher: process that starts them.

    Attributes:
        number: ranks that had ended when the first one was missed.
    """

    def __init__(self, launcher: int) -> None:
        self._launcher = launcher
        self._seen: dict[int, psutil.Process] = {}
        self._since: float | None = None
        self.number = 0

    def look(self) -> None:
        """Take note of ranks that have ended; end the others when they outlive them for too long."""
        for process in ranks_below(self._launcher):
            self._seen.setdefault(process.pid, process)
        alive = [process for process in self._seen.values() if _runs(process)]
        gone = len(self._seen) - len(alive)
        if not gone or not alive:
            return
        if self._since is None:
            # Those that end because of the first come later than this look.
            self._since, self.number = time.monotonic(), gone
        elif time.monotonic() - self._since > _GRACE_SECONDS:
            for process in alive:
                _kill(process)


def children(pid: int) -> list[psutil.Process]:
    """Processes below ``pid``, at any depth; none if it has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def ranks_below(pid: int) -> list[psutil.Process]:
    """Processes below ``pid`` that the deepspeed launcher started as ranks.

    A program that a rank starts has the rank's command line until it is executed, and is no rank.
    """
    below = children(pid)
    named = {process.pid for process in below if _is_named_rank(process)}
    return [process for process in below if process.pid in named and _parent(process) not in named]


def _is_named_rank(process: psutil.Process) -> bool:
    try:
        return any(word.startswith("--local_rank") for word in process.cmdline())
    except psutil.Error:
        return False


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return

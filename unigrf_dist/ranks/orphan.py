"""Ranks end when the process that launched them is gone, so that nothing trains on unseen."""

from __future__ import annotations

import os
import sys
import threading
import time

import psutil

LAUNCHER_VARIABLE = "UNIGRF_LAUNCHER"
_POLL_SECONDS = 0.5
_ORPHANED = 1


def identity(pid: int) -> str:
    """A process by number and start, since numbers are used again."""
    return f"{pid}:{psutil.Process(pid).create_time():.2f}"


def end_with_launcher() -> None:
    """Watch, in a thread, the parent of this process and the program that launched the ranks; end without them.

    Nothing is saved: whoever killed the launcher wanted an end, and the last checkpoint is whole.
    """
    watched = [identity(os.getppid())]
    if launcher := os.environ.get(LAUNCHER_VARIABLE):
        watched.append(launcher)
    threading.Thread(target=_watch, args=(watched,), name="launcher watch", daemon=True).start()


def _watch(watched: list[str]) -> None:
    while all(_is_alive(each) for each in watched):
        time.sleep(_POLL_SECONDS)
    sys.stderr.write(f"rank {os.environ.get('RANK', '0')}: the launcher is gone; this rank ends\n")
    sys.stderr.flush()
    os._exit(_ORPHANED)


def _is_alive(process: str) -> bool:
    pid = int(process.split(":")[0])
    try:
        return identity(pid) == process and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

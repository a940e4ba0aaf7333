"""A run's folder has one owner at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from unigrf_dist.errors import UserError

OWNER_FILE = ".owner"


def own_run(run: Path) -> IO[str]:
    """Take the run's folder for this process, until it ends, however it ends.

    Returns:
        The lock; it is held as long as this file is open.

    Raises:
        UserError: another process has it, or the folder can't be written.
    """
    try:
        owner = (run / OWNER_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{run}: can't write the run's folder: {error.strerror}") from error
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner.seek(0)
        who = owner.read().strip() or "another process"
        owner.close()
        raise UserError(f"{run}: {who} trains this run; wait for its end, or end it first") from None
    owner.seek(0)
    owner.truncate()
    owner.write(f"process {os.getpid()} on {os.uname().nodename}\n")
    owner.flush()
    return owner

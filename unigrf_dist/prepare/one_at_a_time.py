"""A data set is changed by one process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.staging import user_error_of_disk

_LOCK_FILE = ".lock"


@contextmanager
def sole_change(folder: Path) -> Iterator[None]:
    """Hold the data set ``folder`` for this process; a killed one lets go of it.

    Raises:
        UserError: another process changes it, or the folder cannot be written.
    """
    with user_error_of_disk(folder):
        lock = (folder / _LOCK_FILE).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{folder}: is being appended to or compacted; wait for its end") from None
    finally:
        lock.close()

"""Runs a rank's program: user errors become one line and exit status 2, and every rank ends cleanly."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable

from unigrf_dist.errors import UserError
from unigrf_dist.ranks.orphan import end_with_launcher

_OTHERS_WAIT_SECONDS = 2.0


def run_worker(work: Callable[[], int]) -> None:
    """Run ``work`` as this rank and end the process with the status it returns.

    An error of all ranks is printed once: the other ranks wait a moment, in which the launcher ends them
    because of rank 0; if it does not, the error was theirs alone, and they print it.
    """
    from unigrf_dist.ranks.runtime import finish

    rank = int(os.environ.get("RANK", 0))
    end_with_launcher()
    try:
        status, failed = work(), False
    except UserError as error:
        status, failed, text = 2, True, f"error: {error}\n"
    except Exception:
        status, failed, text = 1, True, traceback.format_exc()
    if failed:
        if rank:
            time.sleep(_OTHERS_WAIT_SECONDS)
            text = f"[rank {rank}] {text}"
        sys.stderr.write(text)
    finish(status, together=not failed)

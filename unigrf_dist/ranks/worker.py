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
    # What torch warns of when a rank is gone is told in one line of our own; read when torch is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from unigrf_dist.ranks.runtime import finish
    from unigrf_dist.ranks.watchdog import end_if_cut_off

    rank = int(os.environ.get("RANK", 0))
    end_with_launcher()
    try:
        status, failed = work(), False
    except UserError as error:
        status, failed, text = 2, True, f"error: {error}\n"
    except Exception as error:
        end_if_cut_off(error)
        status, failed, text = 1, True, traceback.format_exc()
    if failed:
        if rank:
            time.sleep(_OTHERS_WAIT_SECONDS)
            text = f"[rank {rank}] {text}"
        sys.stderr.write(text)
    finish(status, together=not failed)

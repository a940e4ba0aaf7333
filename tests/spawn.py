"""Real processes with a gloo group between them, for the tests of everything that communicates.

    def work(x: int) -> int:                      # a function at the top of a test module
        return x * dist.get_rank()

    assert run_ranks(3, work, 7) == [0, 7, 14]

The processes come from a server that has imported torch, TorchRec and DeepSpeed once, which saves six
seconds per rank. They see no GPU, whatever the machine has: two ranks could not share one under NCCL.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# No module of this project: a mutation run shares the server between trees. The last two: what DeepSpeed imports
# with its first ZeRO optimizer (it calls torch.compile, and so brings all of Inductor) and its first operator.
_PRELOAD = [
    "torch",
    "torch.distributed",
    "torchrec",
    "torchrec.distributed",
    "deepspeed",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "torch.utils.cpp_extension",
]
# Without a GPU the kernels of a rank can only be interpreted.
_NO_GPU = {
    "CUDA_VISIBLE_DEVICES": "",
    "DS_ACCELERATOR": "cpu",
    "TRITON_INTERPRET": "1",
    "GLOO_SOCKET_IFNAME": "lo",
}
# After a rank has failed, the others get this long to fail by themselves, so that their own words are seen.
_GRACE_SECONDS = 5.0
_LOG_CHARACTERS = 4000


class RanksFailedError(Exception):
    """A rank raised, died or hung; the message holds what every failed rank had to say."""


def run_ranks(
    world_size: int, function: Callable[..., Any], *args: Any, timeout_seconds: float = 180.0
) -> list[Any]:
    """Call ``function(*args)`` on ``world_size`` ranks of one gloo group and return the results by rank.

    ``function``, ``args`` and the results must be picklable. Inside ``function`` the default process group
    is up, ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and ``LOCAL_WORLD_SIZE`` are set, the rest of the
    environment is the caller's, and torch runs on one thread.

    Raises:
        RanksFailedError: with the tracebacks of the ranks that raised, and the output of those that died or
            were still running after ``timeout_seconds``.
    """
    context = multiprocessing.get_context("forkserver")
    _start_server(context)
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        files = _RankFiles(Path(folder))
        environment = {**os.environ, **_NO_GPU, "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
        processes = [
            context.Process(target=_run_rank, args=(rank, environment, files, timeout_seconds, function, args))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        _wait(processes, time.monotonic() + timeout_seconds)
        failures = [
            text for rank, process in enumerate(processes) if (text := files.failure(rank, process.exitcode))
        ]
        if failures:
            raise RanksFailedError("\n".join(failures))
        return [pickle.loads(files.result(rank).read_bytes()) for rank in range(world_size)]


class _RankFiles:
    """Where the ranks of one call meet and leave their results. Files, because a pipe can be full or broken."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self._folder = folder

    def result(self, rank: int) -> Path:
        return self._folder / f"result-{rank}"

    def error(self, rank: int) -> Path:
        return self._folder / f"error-{rank}"

    def log(self, rank: int) -> Path:
        return self._folder / f"log-{rank}"

    def failure(self, rank: int, exit_status: int | None) -> str | None:
        """What to tell about ``rank``, or None if it did its work."""
        if self.error(rank).exists():
            return f"rank {rank} raised:\n{self.error(rank).read_text()}"
        if exit_status == 0 and self.result(rank).exists():
            return None
        output = self.log(rank).read_text(errors="replace") if self.log(rank).exists() else ""
        return f"rank {rank} ended with status {exit_status}, its last output:\n{output[-_LOG_CHARACTERS:]}"


def _start_server(context: Any) -> None:
    context.set_forkserver_preload(_PRELOAD)
    # The server is a process of its own with the environment of this moment.
    before = dict(os.environ)
    os.environ.update(_NO_GPU)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _wait(processes: list[BaseProcess], deadline: float) -> None:
    running = {process.sentinel: process for process in processes}
    while running and time.monotonic() < deadline:
        for sentinel in connection.wait(list(running), timeout=0.2):
            process = running.pop(sentinel)  # type: ignore[index]
            process.join()
            if process.exitcode != 0:
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
    for process in running.values():
        process.kill()
        process.join()


def _run_rank(
    rank: int,
    environment: dict[str, str],
    files: _RankFiles,
    timeout_seconds: float,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    os.environ.clear()
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    log = os.open(files.log(rank), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # A rank that hangs shows where, shortly before it is killed.
    faulthandler.dump_traceback_later(max(timeout_seconds - 2, 1), file=os.fdopen(log, "a"))
    status = 0
    try:
        _work(rank, files, timeout_seconds, function, args)
    except BaseException:
        files.error(rank).write_text(traceback.format_exc())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Not the interpreter's own end: a gloo thread may still hold a Python object then, and aborts the process.
    os._exit(status)


def _work(
    rank: int, files: _RankFiles, timeout_seconds: float, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=files.store.as_uri(),
        rank=rank,
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=timeout_seconds),
    )
    result = function(*args)
    files.result(rank).write_bytes(pickle.dumps(result))
    if dist.is_initialized():
        dist.barrier()

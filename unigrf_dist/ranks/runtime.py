"""Process groups and devices: how a rank starts and how it ends."""

from __future__ import annotations

import io
import logging
import os
import socket
import sys
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist

from unigrf_dist.ranks.announce import Announce, announce_nothing
from unigrf_dist.ranks.environment import put_own_programs_first, refuse_loopback_master
from unigrf_dist.ranks.operator_build import build_cpu_operator
from unigrf_dist.ranks.progress import reached
from unigrf_dist.ranks.rendezvous import connect, meet
from unigrf_dist.ranks.watchdog import Watchdog, watch

_AFTER_THE_WATCHDOG = 8


@dataclass(frozen=True)
class Runtime:
    """Which of the ranks this process is, and its device."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def start(timeout_seconds: int, announce: Announce = announce_nothing, *, stacks: Path | None = None) -> Runtime:
    """Join the process group that the launcher described, or start one of a single rank.

    NCCL where there is CUDA, gloo where there is none; the rest of the program does not see the difference.

    Args:
        timeout_seconds: longest wait of any collective, in every group.
        announce: told when an operator has to be compiled first, which takes minutes.
        stacks: folder for the stacks of ranks that wait too long; without one, a rank that waits too long ends
            with the words of the collective.

    Raises:
        UserError: the hosts could not meet at MASTER_ADDR.
    """
    _quiet_libraries()
    put_own_programs_first()
    refuse_loopback_master(os.environ)
    on_cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if on_cuda else "cpu")
    if "WORLD_SIZE" not in os.environ:
        _describe_single_rank()
    # The deepspeed launcher and torchrun name the number of ranks on a host differently.
    os.environ.setdefault("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", os.environ["WORLD_SIZE"]))
    # Else DeepSpeed makes a shared-memory buffer for inference, 66 MiB per rank, that outlives the process.
    os.environ.pop("LOCAL_SIZE", None)
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local_rank) if on_cuda else torch.device("cpu")
    if on_cuda:
        torch.cuda.set_device(device)
    # The watchdog speaks first: it knows who is missing.
    timeout = timedelta(seconds=timeout_seconds + (_AFTER_THE_WATCHDOG if stacks else 0))
    # DeepSpeed and TorchRec open groups of their own without a timeout; those take the module's default.
    torch.distributed.distributed_c10d.default_pg_timeout = timeout
    import deepspeed  # here, because importing it reads DS_ACCELERATOR

    _quiet_libraries()  # importing DeepSpeed has set its logger back
    if not on_cuda:
        build_cpu_operator(announce)
    backend = "nccl" if on_cuda else "gloo"
    reached("start")
    if not dist.is_initialized():
        store = meet(os.environ, timedelta(seconds=timeout_seconds))
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    with redirect_stdout(io.StringIO()):  # it prints that an operator was built, which failed loudly if not
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, timeout=timeout, verbose=False)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    if stacks is not None and world_size > 1:
        own = connect(os.environ, timeout)
        watch(Watchdog(own, rank, world_size, timeout_seconds=timeout_seconds, stacks=stacks))
    return Runtime(rank, world_size, device)


def finish(exit_status: int, *, together: bool) -> NoReturn:
    """End this rank with ``exit_status``; ``together`` waits for the other ranks first.

    The interpreter's own end is skipped: a gloo thread may still hold a Python object then, and aborts the
    process after all work is done.
    """
    if together and dist.is_initialized():
        dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_status)


def free_port() -> int:
    """A TCP port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _describe_single_rank() -> None:
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ.update(alone, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))


def _quiet_libraries() -> None:
    # What they log at every start is about options that are not used here; errors still show.
    for name in ("DeepSpeed", "torchrec", "torch.fx._symbolic_trace", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    warnings.filterwarnings("ignore", module=r"(torchrec|deepspeed|fbgemm_gpu|torch)\b.*")

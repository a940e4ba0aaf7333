"""How ranks find each other: a store at MASTER_ADDR, and who has not come when time is up."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist

from unigrf_dist.errors import UserError

_DESCRIPTION = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_HERE, _CAME = "unigrf/here/{}", "unigrf/came"
_LOOK_SECONDS = 0.1
# The rank that serves the store stays for the others' last questions.
_LAST_QUESTIONS_SECONDS = 2.0
# The agent of torchrun keeps the store itself.
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"


def meet(environment: Mapping[str, str], timeout: timedelta) -> dist.Store:
    """The store through which all ranks of the launcher's description have met.

    Where MASTER_ADDR is this machine's loopback, rank 0's store listens there alone.

    Args:
        environment: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as the launcher set them.
        timeout: how long to wait for the others.

    Raises:
        UserError: the address can't be reached or used, or ranks did not come; the message names them.
    """
    if absent := [name for name in _DESCRIPTION if name not in environment]:
        raise UserError(
            f"{absent[0]} is not set, but others of a launcher are: start the ranks with `unigrf train`, "
            "deepspeed or torchrun, or unset WORLD_SIZE to train on one rank"
        )
    rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    serves = rank == 0 and environment.get(_AGENT_STORE) != "True"
    store = _store(address, port, world_size, serves, timeout)
    store.set(_HERE.format(rank), socket.gethostname())
    store.add(_CAME, 1)
    deadline = time.monotonic() + timeout.total_seconds()
    # A count, not a wait for all keys: one number per look, however many ranks there are.
    while store.add(_CAME, 0) < world_size:
        if time.monotonic() > deadline:
            raise _missing(store, serves, world_size, f"{address}:{port}", timeout)
        time.sleep(_LOOK_SECONDS)
    return store


def _missing(store: dist.Store, serves: bool, world_size: int, address: str, timeout: timedelta) -> UserError:
    came = [rank for rank in range(world_size) if store.check([_HERE.format(rank)])]
    hosts = sorted({store.get(_HERE.format(rank)).decode() for rank in came})
    if serves:
        time.sleep(_LAST_QUESTIONS_SECONDS)
    missing = _listed([rank for rank in range(world_size) if rank not in came])
    return UserError(
        f"{len(came)} of {world_size} ranks came to {address} within {timeout.total_seconds():.0f} s, from "
        f"{', '.join(hosts)}; missing: rank {missing}; start the host that has them, and see its own messages"
    )


def connect(environment: Mapping[str, str], timeout: timedelta) -> dist.Store:
    """Another connection to the store, for a thread: one connection serves one request at a time."""
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    return dist.TCPStore(address, port, int(environment["WORLD_SIZE"]), False, timeout, wait_for_workers=False)


def _store(address: str, port: int, world_size: int, serves: bool, timeout: timedelta) -> dist.TCPStore:
    descriptor = None
    try:
        if serves and _is_loopback(address):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((socket.gethostbyname(address), port))
            listener.listen(max(128, world_size))
            descriptor = listener.detach()
        return dist.TCPStore(
            address, port, world_size, serves, timeout, wait_for_workers=False, master_listen_fd=descriptor
        )
    except (dist.DistNetworkError, dist.DistStoreError, OSError, RuntimeError) as error:
        who = "can't listen at" if serves else f"found nobody within {timeout.total_seconds():.0f} s at"
        reason = str(error).splitlines()[0][:120]
        raise UserError(
            f"rank {os.environ.get('RANK', '0')} {who} MASTER_ADDR:MASTER_PORT = {address}:{port} ({reason}); "
            "start rank 0's host first, and give an address and a free port that all hosts reach"
        ) from error


def _is_loopback(address: str) -> bool:
    return address == "localhost" or address.startswith("127.")


def _listed(ranks: list[int]) -> str:
    """``3, 4, 5`` as ``3-5``."""
    parts: list[str] = []
    for rank in ranks:
        if parts and int(parts[-1].split("-")[-1]) == rank - 1:
            parts[-1] = f"{parts[-1].split('-')[0]}-{rank}"
        else:
            parts.append(str(rank))
    return ", ".join(parts)

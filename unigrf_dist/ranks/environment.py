"""Environment variables of the processes: PATH for what they start, and where the ranks meet."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from unigrf_dist.errors import UserError


def put_own_programs_first() -> None:
    """Let child processes find the programs of this Python's environment, also where it is not activated.

    torch finds ninja by PATH. Were it sometimes the machine's and sometimes this environment's, each would compile
    DeepSpeed's operator anew, because one does not read the other's log.
    """
    own = str(Path(sys.executable).parent)
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if folders[0] != own:
        os.environ["PATH"] = os.pathsep.join([own, *folders])


def refuse_loopback_master(environment: Mapping[str, str]) -> None:
    """Refuse a rendezvous address that each host of a multi-host run takes for itself.

    Args:
        environment: environment variables of a rank, as the deepspeed launcher or torchrun sets them.

    Raises:
        UserError: ``MASTER_ADDR`` is a loopback address and there are ranks on other hosts.
    """
    world_size = int(environment.get("WORLD_SIZE", 1))
    # The deepspeed launcher names the number of a host's ranks LOCAL_SIZE, torchrun LOCAL_WORLD_SIZE.
    on_this_host = int(environment.get("LOCAL_SIZE") or environment.get("LOCAL_WORLD_SIZE") or world_size)
    address = environment.get("MASTER_ADDR", "")
    if world_size > on_this_host and _is_loopback(address):
        raise UserError(
            f"MASTER_ADDR={address} with {world_size} ranks, {on_this_host} of them here: each host would wait "
            "for itself; set it to the address of the first host as the others reach it"
        )


def _is_loopback(address: str) -> bool:
    names = ("localhost", "ip6-localhost", "::1", "0.0.0.0")
    return address in names or address.startswith(("localhost.", "127."))

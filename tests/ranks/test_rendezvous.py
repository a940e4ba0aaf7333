"""How ranks meet: who did not come is named, and nobody listens to the network for ranks of one machine."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import psutil
import pytest

from unigrf_dist.errors import UserError
from unigrf_dist.ranks.rendezvous import meet
from unigrf_dist.ranks.runtime import free_port


def described(rank: int, world_size: int, port: int) -> dict[str, str]:
    values = {"RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in values.items()}


def test_ranks_that_did_not_come_are_named_on_every_rank_in_time() -> None:
    port, said, began = free_port(), {}, time.monotonic()

    def come(rank: int) -> None:
        try:
            meet(described(rank, 6, port), timedelta(seconds=3))
        except UserError as error:
            said[rank] = str(error)

    came = [threading.Thread(target=come, args=(rank,)) for rank in (0, 2)]
    for thread in came:
        thread.start()
    for thread in came:
        thread.join()
    assert time.monotonic() - began < 8
    for rank in (0, 2):
        assert "2 of 6 ranks came to 127.0.0.1" in said[rank]
        assert "missing: rank 1, 3-5;" in said[rank]


def test_without_rank_0_the_address_is_named() -> None:
    port, began = free_port(), time.monotonic()
    with pytest.raises(UserError, match=f"rank . found nobody within 2 s at MASTER_ADDR.* 127.0.0.1:{port}"):
        meet(described(1, 2, port), timedelta(seconds=2))
    assert time.monotonic() - began < 10


def test_a_taken_port_is_one_line() -> None:
    port = free_port()
    store = meet(described(0, 1, port), timedelta(seconds=5))
    with pytest.raises(UserError, match="can't listen at MASTER_ADDR"):
        meet(described(0, 1, port), timedelta(seconds=5))
    del store


def test_ranks_of_one_machine_listen_on_its_loopback_alone() -> None:
    port = free_port()
    store = meet(described(0, 1, port), timedelta(seconds=5))
    listening = [
        connection.laddr.ip
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    assert listening == ["127.0.0.1"]
    del store

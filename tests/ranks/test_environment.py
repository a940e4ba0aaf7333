"""The environment of processes: programs that go first, and the meeting point that is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from unigrf_dist.errors import UserError
from unigrf_dist.ranks.environment import put_own_programs_first, refuse_loopback_master


def test_programs_of_this_python_go_first_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(["/usr/bin", "/bin"]))
    put_own_programs_first()
    put_own_programs_first()
    assert os.environ["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin", "/bin"]


@pytest.mark.parametrize(
    "address", ["localhost", "127.0.0.1", "127.0.1.1", "::1", "localhost.localdomain", "0.0.0.0"]
)
@pytest.mark.parametrize("name", ["LOCAL_SIZE", "LOCAL_WORLD_SIZE"])
def test_several_hosts_can_not_meet_at_a_loopback_address(address: str, name: str) -> None:
    with pytest.raises(UserError, match=f"MASTER_ADDR={address} with 4 ranks, 2 of them here"):
        refuse_loopback_master({"WORLD_SIZE": "4", name: "2", "MASTER_ADDR": address})


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WORLD_SIZE": "2", "LOCAL_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
        {"WORLD_SIZE": "4", "LOCAL_SIZE": "2", "MASTER_ADDR": "10.1.2.3"},
        {"WORLD_SIZE": "4", "LOCAL_SIZE": "2", "MASTER_ADDR": "localhost-17.cluster"},
    ],
    ids=["no launcher", "one host", "one host by torchrun", "an address", "a name"],
)
def test_other_meeting_points_are_fine(environment: dict[str, str]) -> None:
    refuse_loopback_master(environment)

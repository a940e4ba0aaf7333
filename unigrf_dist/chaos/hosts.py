"""Two hosts on one machine: network namespaces that see each other over a virtual cable, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """One end of the cable. ``enter`` are the words before a command that shall run there."""

    namespace: str
    interface: str
    address: str

    @property
    def enter(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]


def namespaces_allowed() -> bool:
    """Whether this process may make network namespaces."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"unigrf-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        _ip("netns", "delete", name)
    return made


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Make the hosts, and unmake them at the end with all that is left running in them."""
    number = os.getpid()
    hosts = tuple(Host(f"unigrf-{number}-{end}", f"ug{number}{end}", f"10.77.0.{end}") for end in (1, 2))
    try:
        for host in hosts:
            _ip("netns", "add", host.namespace)
        _ip("link", "add", hosts[0].interface, "type", "veth", "peer", "name", hosts[1].interface)
        for host in hosts:
            _ip("link", "set", host.interface, "netns", host.namespace)
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", host.interface)
            for interface in ("lo", host.interface):
                _ip("-n", host.namespace, "link", "set", interface, "up")
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host.namespace], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def cut(host: Host) -> None:
    """Take one end out of the cable; what was sent is lost, and nobody is told."""
    _ip("-n", host.namespace, "link", "set", host.interface, "down")


def rejoin(host: Host) -> None:
    """Put it back."""
    _ip("-n", host.namespace, "link", "set", host.interface, "up")

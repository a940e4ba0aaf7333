"""From the command line to a server that listens."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import uvicorn

from unigrf_dist.errors import UserError
from unigrf_dist.serve.approximate import Search
from unigrf_dist.serve.server.app import Limits, make_app
from unigrf_dist.serve.server.versions import Versions

_SECONDS_TO_FINISH = 30
SHORTEST_TOKEN = 16


def refuse_open_door(host: str, token: str | None) -> None:
    """Raise UserError where others than this machine could ask without a token, or the token is no secret."""
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise UserError(
            f"the token has {len(token)} characters; take {SHORTEST_TOKEN} or more that nobody can guess"
        )
    if token is None and not _is_loopback(host):
        raise UserError(
            f"--host {host} is reached from other machines, which needs a bearer token: put one into "
            "UNIGRF_SERVE_TOKEN or a file (--token-file), or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    folder: Path, *, host: str, port: int, checkpoint: str, kept_bytes: int, search: Search, limits: Limits
) -> None:
    """Serve a folder until SIGTERM or Ctrl-C, which let the requests that have come be answered.

    Args:
        folder: a run's folder, or a symbolic link to one.
        host: address to listen on.
        port: port to listen on.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        kept_bytes: memory for kept histories.
        search: how the catalogue of an export is searched, as in ``from_pretrained``.
        limits: what is taken, and from whom.

    Raises:
        UserError: the folder can't be served, or the address is in use or needs a token.
    """
    refuse_open_door(host, limits.token)
    with listening(host, port) as door:
        versions = Versions(folder, checkpoint=checkpoint, kept_bytes=kept_bytes, search=search)
        shown = f"[{host}]" if ":" in host else host
        print(f"serving {versions.current.name} on http://{shown}:{port}/", flush=True)
        config = uvicorn.Config(
            make_app(versions, limits),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        uvicorn.Server(config).run(sockets=[door])


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address, before a model is loaded for it.

    Raises:
        UserError: the port is in use, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        door = socket.socket(family, kind, protocol)
        try:
            # A server that has just ended leaves connections behind that would hold its port for a minute.
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(address)
            # Two sockets may be bound to one port until one of them listens.
            door.listen()
        except OSError:
            door.close()
            raise
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: can't listen there: {error.strerror or error}; choose another --port"
        ) from error
    return door

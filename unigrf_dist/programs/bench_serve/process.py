"""A server in a process of its own, and clients that ask it over loopback."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from unigrf_dist.data.sequences import Sequences
from unigrf_dist.errors import UserError
from unigrf_dist.programs.bench_serve.drawn import BEHAVIOURS, FIRST_ITEM
from unigrf_dist.programs.bench_serve.times import LIST_LENGTH, Shape, Times

_HOST, _SECONDS = "127.0.0.1", 60


class Client:
    """One connection that stays open; for one thread.

    Args:
        port: port of the server on loopback.
    """

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(_HOST, port, timeout=_SECONDS)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        self._connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(frozen=True)
class ServedProcess:
    """A server that answers.

    Attributes:
        port: its port on loopback.
        process: what `psutil` knows of it.
    """

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """CPU seconds of all its threads so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def served(folder: Path, *options: str) -> Iterator[ServedProcess]:
    """``unigrf serve FOLDER`` on a free port of loopback, ended afterwards.

    Raises:
        UserError: it did not start; the message is its own.
    """
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "unigrf_dist", "serve", str(folder), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            if not process.stdout.readline():
                raise UserError(process.stderr.read().strip().removeprefix("error: ") or "unigrf serve ended")
            _wait_until_ready(port, process)
            yield ServedProcess(port, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(port: int, process: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < ends:
        connection = http.client.HTTPConnection(_HOST, port, timeout=_SECONDS)
        try:
            connection.request("GET", "/ready")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise UserError("bench serve: the server did not become ready")


def clients_times(folder: Path, histories: Sequences, shape: Shape, num_clients: int) -> dict[str, Times]:
    """What requests over HTTP take with some clients that each ask again as soon as they are answered.

    ``cold`` requests bring their history; ``kept`` ones name a user of whom the server knows it, and has kept it.

    Args:
        folder: folder of an export.
        histories: a history for each request of a way.
        shape: what is asked for; its users of a call do not count.
        num_clients: clients at a time.
    """
    wanted = {"k": LIST_LENGTH, "candidates": shape.candidates}
    events = [events_of(histories, user) for user in range(histories.num_users)]
    cold = [{"history": each, **wanted} for each in events]
    kept = [{"user": str(user), **wanted} for user in range(len(events))]
    known = [{"user": str(user), "events": each} for user, each in enumerate(events)]
    with served(folder, "--kept-mb", "4096") as server:
        _ask(server, "/v1/recommend", cold[:num_clients], num_clients)
        found = {"cold": _ask(server, "/v1/recommend", cold, num_clients)}
        _ask(server, "/v1/events", known, num_clients)
        _ask(server, "/v1/recommend", kept, num_clients)
        found["kept"] = _ask(server, "/v1/recommend", kept, num_clients)
    return found


def events_of(histories: Sequences, user: int) -> list[dict[str, Any]]:
    """One user's events as a request brings them."""
    own = slice(histories.offsets[user], histories.offsets[user + 1])
    rows = zip(
        histories.item_ids[own].tolist(),
        histories.behaviours[own].tolist(),
        histories.timestamps[own].tolist(),
        strict=True,
    )
    return [{"item": FIRST_ITEM + row, "behaviour": BEHAVIOURS[code], "time": time} for row, code, time in rows]


def _ask(server: ServedProcess, path: str, bodies: Sequence[Any], num_clients: int) -> Times:
    walls: list[float] = []
    gate = threading.Lock()
    waiting = iter(bodies)

    def client() -> None:
        connection = Client(server.port)
        try:
            while True:
                with gate:
                    body = next(waiting, None)
                if body is None:
                    return
                start = time.perf_counter()
                status, answer = connection.post(path, body)
                walls.append(time.perf_counter() - start)
                if status != http.client.OK:
                    raise UserError(f"bench serve: {path} answered {status}: {json.dumps(answer)[:200]}")
        finally:
            connection.close()

    cpu, began = server.cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(num_clients) as pool:
        for future in [pool.submit(client) for _ in range(num_clients)]:
            future.result()
    wall = time.perf_counter() - began
    return Times.of(walls, cpu=server.cpu_seconds() - cpu, requests=len(bodies), wall=wall)

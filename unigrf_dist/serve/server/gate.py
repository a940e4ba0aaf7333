"""Who may ask, and how large a request may be; seen before anything of a request is read."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_OPEN = {"/", "/health", "/ready"}
_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "[::1]"}


class _TooLarge(Exception):
    """The body is larger than it may be."""


class Gate:
    """ASGI middleware.

    Without a token only requests to a loopback name are let in, so that no page of another site reaches the server
    through a browser on this machine.

    Args:
        app: what stands behind it.
        token: bearer token of every path but the page, ``/health`` and ``/ready``; None for none.
        max_bytes: largest body.
        on_answer: told path, status and seconds of every answer.
    """

    def __init__(
        self, app: App, *, token: str | None, max_bytes: int, on_answer: Callable[[str, int, float], None]
    ) -> None:
        self._app, self._token, self._max_bytes, self._on_answer = app, token, max_bytes, on_answer

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pass(scope, receive, noting, lambda: status != 0)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._on_answer(path, status, time.perf_counter() - begun)

    async def _pass(self, scope: Message, receive: Receive, send: Send, answered: Callable[[], bool]) -> None:
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        if self._token is None and _host(headers.get("host", b"")) not in _LOOPBACK_NAMES:
            await _refuse(
                send, 403, "this server answers to loopback names alone; start it with a token for others"
            )
            return
        if self._token is not None and scope["path"] not in _OPEN and not self._has_token(headers):
            await _refuse(send, 401, "a bearer token is needed", (b"www-authenticate", b"Bearer"))
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise _TooLarge
            return message

        try:
            length = headers.get("content-length", b"0")
            if length.isdigit() and int(length) > self._max_bytes:
                raise _TooLarge
            await self._app(scope, limited, send)
        except _TooLarge:
            if not answered():
                await _refuse(send, 413, f"a body has at most {self._max_bytes:,} bytes (--max-bytes)")

    def _has_token(self, headers: dict[str, bytes]) -> bool:
        kind, _, given = headers.get("authorization", b"").partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), (self._token or "").encode())


def _host(header: bytes) -> str:
    """The name in a Host header, without its port."""
    text = header.decode("latin-1").lower()
    return text[: text.index("]") + 1] if text.startswith("[") and "]" in text else text.partition(":")[0]


async def _refuse(send: Send, status: int, problem: str, *headers: tuple[bytes, bytes]) -> None:
    body = json.dumps({"detail": problem}).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})

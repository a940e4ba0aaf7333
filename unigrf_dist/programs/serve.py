"""``unigrf serve``: recommendations over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from unigrf_dist.errors import UserError

_TOKEN = "UNIGRF_SERVE_TOKEN"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(serve)


def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run, or a link to one.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    checkpoint: Annotated[str, typer.Option(help="best, latest or a checkpoint's name.")] = "best",
    threads: Annotated[int, typer.Option(min=1, help="Threads that compute, a core each.")] = 1,
    kept_mb: Annotated[int, typer.Option(min=0, help="Memory for histories kept between requests, in MB.")] = 512,
    max_batch: Annotated[int, typer.Option(min=1, help="Requests answered together.")] = 32,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait; the next gets 503.")] = 1024,
    max_bytes: Annotated[int, typer.Option(min=1, help="Largest body of a request.")] = 8 << 20,
    max_events: Annotated[int, typer.Option(min=1, help="Appended events held in memory.")] = 1_000_000,
    search: Annotated[
        Literal["auto", "exact", "ann"],
        typer.Option(help="How an export's catalogue is searched; ann needs its catalogue.faiss."),
    ] = "auto",
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with the bearer token; else {_TOKEN} in the environment.")
    ] = None,
) -> None:
    """Serve recommendations over HTTP, with a page to look at."""
    try:
        from unigrf_dist.serve.server.app import Limits
        from unigrf_dist.serve.server.running import serve as listen
    except ModuleNotFoundError as error:
        raise UserError(f"serve: {error.name} is not installed; pip install 'unigrf-dist[serve]'") from error
    limits = Limits(_token(token_file), max_bytes, max_batch, max_waiting, max_events, threads)
    listen(
        folder, host=host, port=port, checkpoint=checkpoint, kept_bytes=kept_mb << 20, search=search, limits=limits
    )


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(_TOKEN) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: the token can't be read: {error}") from error
    if not token:
        raise UserError(f"{file}: is empty; write the bearer token into it")
    return token

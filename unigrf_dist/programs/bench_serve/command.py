"""The command: shapes to measure, one value changed at a time, and the table of what they took."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from unigrf_dist.errors import UserError


def bench_serve(
    config: Annotated[Path, typer.Option(help="YAML file of a model; tasks on ratings, no features.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value.")
    ] = None,
    users: Annotated[
        list[int] | None, typer.Option("--batch-users", min=1, help="Users of a call; repeatable. [1, 8, 32]")
    ] = None,
    events: Annotated[
        list[int] | None, typer.Option(min=1, help="Events of a history. [all that the model reads, 50]")
    ] = None,
    candidates: Annotated[
        list[int] | None, typer.Option(min=10, help="Items that ranking gets. [100, 20, 500]")
    ] = None,
    items: Annotated[list[int] | None, typer.Option(min=20, help="Items of the catalogue. [3706, 100000]")] = None,
    clients: Annotated[list[int] | None, typer.Option(min=0, help="Clients over HTTP; 0 for none. [1, 8]")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Calls, and requests over HTTP, of each line.")] = 50,
    soak: Annotated[
        int | None,
        typer.Option(min=100, help="Instead: mixed requests to a server, swapped in the middle, all compared."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """CPU and wall milliseconds of a request, with weights that are drawn, on one thread.

    The first value of each option makes the base; the other values are measured one at a time beside it. Each
    line has lists of 10 entries, with raw ids.
    """
    from unigrf_dist.config import load_config

    loaded = load_config(config, overrides or [])
    most = loaded.data.max_events
    choices = [
        users or [1, 8, 32],
        events or sorted({most, min(50, most)}, reverse=True),
        candidates or [100, 20, 500],
        items or [3706, 100_000],
    ]
    if soak is not None:
        _refuse_without_server()
        _soak(loaded, soak, choices[3][0], as_json)
        return
    asking = [number for number in clients or [1, 8] if number] if clients != [0] else []
    if asking:
        _refuse_without_server()
    report: dict[str, Any] = {"config": str(config), "set": overrides or [], "repeats": repeats}
    with tempfile.TemporaryDirectory() as place:
        report["calls"] = list(_calls(Path(place), loaded, choices, repeats))
        report["http"] = list(_over_http(Path(place), loaded, choices, asking, repeats))
    if as_json:
        typer.echo(json.dumps(report, indent=1))
    else:
        _show(report)


def _soak(config: Any, num_requests: int, num_items: int, as_json: bool) -> None:
    """Ask and tell; exit status 1 where a request is lost or wrong."""
    from unigrf_dist.programs.bench_serve.soak import soak

    with tempfile.TemporaryDirectory() as place:
        result = soak(Path(place), config, num_requests=num_requests, num_items=num_items)
    if as_json:
        typer.echo(json.dumps(vars(result), indent=1))
    else:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(result.requests.items()))
        versions = ", ".join(f"{count:,} {name} the swap" for name, count in sorted(result.versions.items()))
        typer.echo(f"{sum(result.requests.values()):,} requests: {kinds}")
        typer.echo(f"lists and scores: {versions}")
        typer.echo(f"lost: {len(result.lost)}, wrong: {len(result.wrong)}")
        for line in (result.lost + result.wrong)[:5]:
            typer.echo(f"  {line[:300]}")
    if result.lost or result.wrong:
        raise typer.Exit(1)


def _refuse_without_server() -> None:
    from importlib.util import find_spec

    if find_spec("uvicorn") is None or find_spec("fastapi") is None:
        raise UserError("bench serve: clients need a server; pip install 'unigrf-dist[serve]', or --clients 0")


def _shapes(choices: Sequence[Sequence[int]]) -> Iterator[Any]:
    from unigrf_dist.programs.bench_serve.times import Shape

    base = [values[0] for values in choices]
    yield Shape(*base)
    for place, values in enumerate(choices):
        for value in values[1:]:
            yield Shape(*(value if place == other else chosen for other, chosen in enumerate(base)))


def _export(place: Path, config: Any, num_items: int) -> Path:
    from unigrf_dist.programs.bench_serve.drawn import write_drawn_export

    folder = place / f"items-{num_items}"
    if not folder.exists():
        write_drawn_export(folder, config, num_items=num_items, seed=1)
    return folder


def _calls(place: Path, config: Any, choices: Sequence[Sequence[int]], repeats: int) -> Iterator[dict[str, Any]]:
    from unigrf_dist.programs.bench_serve.times import ways
    from unigrf_dist.serve.export.read import load_export

    for shape in _shapes(choices):
        run = load_export(_export(place, config, shape.items))
        for way, times in ways(run, shape, repeats).items():
            yield {**shape._asdict(), "way": way, **times.to_json()}


def _over_http(
    place: Path, config: Any, choices: Sequence[Sequence[int]], clients: Sequence[int], repeats: int
) -> Iterator[dict[str, Any]]:
    from unigrf_dist.programs.bench_serve.drawn import drawn_histories
    from unigrf_dist.programs.bench_serve.process import clients_times

    shape = next(iter(_shapes(choices)))
    for number in clients:
        histories = drawn_histories(repeats, shape.events, shape.items, seed=2)
        folder = _export(place, config, shape.items)
        for way, times in clients_times(folder, histories, shape, number).items():
            yield {**shape._asdict(), "users": 1, "clients": number, "way": way, **times.to_json()}


_TIMES = {"cpu_ms": "CPU ms", "p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "per_second": "per s"}
_CALLS = ("calls", "In this process: CPU ms per list, wall ms per call, lists per second")
_HTTP = ("http", "Over HTTP: CPU ms of the server per request, wall ms per request, requests per second")


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for (part, title), asked in (
        (_CALLS, {"users": "users", "events": "events", "candidates": "cand.", "items": "items"}),
        (_HTTP, {"clients": "clients", "events": "events"}),
    ):
        if not report[part]:
            continue
        # Eighty columns are what a pipe gets.
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
        for name in [*asked.values(), "way", *_TIMES.values()]:
            table.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
        before: list[str] = []
        for line in report[part]:
            shape = [f"{line[name]:,}" for name in asked]
            numbers = [f"{line[name]:,.1f}" for name in _TIMES]
            table.add_row(*([""] * len(asked) if shape == before else shape), line["way"], *numbers)
            before = shape
        console.print(table)

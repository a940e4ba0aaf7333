"""``unigrf bench prepare``: what preparing a large log costs in CPU time, memory and temporary disk."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_PER_CHUNK = 1_000_000
_SECONDS = 100_000_000
_POLL_SECONDS = 0.5


def bench_prepare(
    events: Annotated[int, typer.Option(min=1, help="Events of the log.")] = 10_000_000,
    users: Annotated[int, typer.Option(min=1)] = 100_000,
    items: Annotated[int, typer.Option(min=1)] = 50_000,
    memory_limit: Annotated[str, typer.Option(help="Passed to prepare.")] = "2GB",
    folder: Annotated[
        Path | None, typer.Option(help="Existing folder for the log and the data set, removed afterwards.")
    ] = None,
) -> None:
    """Draw a log in the order of time as Parquet, prepare it in a process of its own, and tell what that took."""
    from rich.console import Console
    from rich.table import Table

    with tempfile.TemporaryDirectory(prefix="bench-prepare-", dir=folder) as place:
        raw, out = Path(place) / "log.parquet", Path(place) / "out"
        _write_log(raw, events, users, items)
        cpu, wall, rss, temporary = _prepare(raw, out, memory_limit)
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    table = Table(title=f"{events:,} events, {users:,} users, {items:,} items, --memory-limit {memory_limit}")
    for name in ("events per CPU second", "CPU s", "wall s", "peak MiB", "temporary bytes per event", "written"):
        table.add_column(name, justify="right")
    rate = f"{events / cpu / 1e6:.2f} M"
    each = f"{temporary / events:.1f}", f"{size / events:.1f}"
    table.add_row(rate, f"{cpu:.1f}", f"{wall:.1f}", f"{rss / 2**20:,.0f}", *each)
    Console().print(table)


def _write_log(file: Path, events: int, users: int, items: int) -> None:
    import pyarrow.parquet as pq

    writer: pq.ParquetWriter | None = None
    for first in range(0, events, _ROWS_PER_CHUNK):
        chunk = _chunk(first, min(_ROWS_PER_CHUNK, events - first), events, users, items)
        writer = writer or pq.ParquetWriter(file, chunk.schema, compression="zstd")
        writer.write_table(chunk)
    assert writer is not None, "there is at least one event"
    writer.close()


def _chunk(first: int, count: int, events: int, users: int, items: int) -> pa.Table:
    """Events from number ``first`` on: long-tailed users and items, ascending times, five ratings."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng([7, first])
    # Neighbouring users are not alike: their ids are spread by a prime.
    drawn = (users * random.random(count) ** 2).astype(np.int64) * 7919 % users
    clock = 1_500_000_000 + (first + np.sort(random.integers(0, count, count))) * _SECONDS // events
    return pa.table(
        {
            "user_id": drawn,
            "item_id": (items * random.random(count) ** 3).astype(np.int64),
            "timestamp": clock,
            "rating": random.integers(1, 6, count).astype(np.float64),
        }
    )


def _prepare(raw: Path, out: Path, memory_limit: str) -> tuple[float, float, int, int]:
    """CPU seconds, wall seconds, peak memory and peak temporary disk of ``unigrf prepare``, in bytes."""
    command = [sys.executable, "-m", "unigrf_dist", "prepare", "parquet", "--raw", str(raw), "--out", str(out)]
    command += ["--column", "behaviour=rating", "--memory-limit", memory_limit]
    begun, peak = time.perf_counter(), 0
    child = os.posix_spawn(sys.executable, command, os.environ)
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        peak = max(peak, _bytes_below(out.parent / f".{out.name}.staging"))
        time.sleep(_POLL_SECONDS)
    if status:
        raise typer.Exit(os.waitstatus_to_exitcode(status))
    kibibyte = 1024 if sys.platform != "darwin" else 1
    wall = time.perf_counter() - begun
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * kibibyte, peak


def _bytes_below(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except FileNotFoundError:  # removed meanwhile
                continue
    return total

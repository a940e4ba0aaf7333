"""``unigrf bench save``: how long training stands still for a checkpoint, beside how long it takes to write."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

_MEBIBYTE = 1 << 20


def bench_save(
    items: Annotated[int, typer.Option(min=1, help="Rows of the item table.")] = 500_000,
    width: Annotated[int, typer.Option(min=4, help="Width of the item table.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Saves of each kind, in turns.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Where to write; a temporary folder if left out.")] = None,
) -> None:
    """Milliseconds that a save stops training, written at once and written aside, on one rank."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        pauses, size = _measure(Path(place), items, width, repeats)
    at_once, aside = (statistics.median(pauses[kind]) for kind in ("at once", "aside"))
    typer.echo(f"checkpoint of {size / _MEBIBYTE:,.0f} MiB, median of {repeats} saves of each kind")
    typer.echo(f"written at once: training stands still for {1e3 * at_once:,.0f} ms")
    typer.echo(f"written aside:   training stands still for {1e3 * aside:,.0f} ms, {aside / at_once:.1%} of it")


def _measure(run: Path, items: int, width: int, repeats: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of each kind of save, in turns, and the bytes of a checkpoint."""
    from unigrf_dist.config.schema import Config
    from unigrf_dist.model.tables import ItemTable
    from unigrf_dist.model.unigrf import UniGRF
    from unigrf_dist.phases import Phases
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState
    from unigrf_dist.train.engine import build_engine

    config = Config.model_validate(
        {
            "data": {"path": "unused"},
            "model": {"width": width, "heads": 1, "head_width": width},
            "objective": {"ranking": [{"rule": "rating >= 4"}]},
            "train": {"epochs": 1},
            "deepspeed": {"zero_optimization": {"stage": 2}, "optimizer": {"type": "AdamW"}},
        }
    )
    device = start(600).device
    table = ItemTable(config.tables, num_items=items, width=width, device=device, seed=1)
    model = UniGRF(config, [[0.0], [1.0]], num_items=items, phases=Phases())
    checkpoints = Checkpoints(run, build_engine(config, model, num_users=1000), table, keep=1)
    checkpoints.save(TrainState(step=1))  # the first one makes the buffers
    pauses: dict[str, list[float]] = {"at once": [], "aside": []}
    for number in range(repeats):
        began = time.perf_counter()
        checkpoints.save(TrainState(step=2 * number + 2))
        pauses["at once"].append(time.perf_counter() - began)
        began = time.perf_counter()
        checkpoints.begin_save(TrainState(step=2 * number + 3))
        pause = time.perf_counter() - began
        while checkpoints.unwritten:
            time.sleep(0.01)
        began = time.perf_counter()
        checkpoints.complete()
        pauses["aside"].append(pause + time.perf_counter() - began)
    place = checkpoints.resolve("latest")
    return pauses, sum(file.stat().st_size for file in place.iterdir())

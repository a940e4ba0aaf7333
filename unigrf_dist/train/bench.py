"""``unigrf bench train``: how fast a configuration trains here, and where the time goes."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from unigrf_dist.phases import Phases
from unigrf_dist.train.build import Parts, build_parts
from unigrf_dist.train.loop import build_step, build_stream
from unigrf_dist.train.worker import run_worker

_WARM_UP_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="unigrf_dist.train.bench", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--local_rank", type=int)
    arguments = parser.parse_args()
    run_worker(lambda: _bench(arguments))


def _bench(arguments: argparse.Namespace) -> int:
    from unigrf_dist.config import load_config
    from unigrf_dist.train.runtime import start

    config = load_config(arguments.config, arguments.set)
    parts = build_parts(config, start(config.train.timeout_seconds), Phases(timed=True))
    figures = measure(parts, arguments.steps)
    if parts.runtime.is_main:
        _show(figures)
        if arguments.out:
            arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(parts: Parts, steps: int) -> dict[str, Any]:
    """Train ``steps`` steps after a warm-up and sum up their time by phase; collective.

    Returns:
        interactions per second over all ranks, milliseconds per step and phase, and peak memory, of rank 0.
    """
    phases, stream = parts.phases, build_stream(parts)
    step = build_step(parts, stream)
    batches = chain.from_iterable(stream.epoch(epoch) for epoch, _ in enumerate(repeat(None)))
    if step.proposals is not None:
        # What is measured is a step after the enhancer's warm-up.
        step.proposals.fill(parts.dataset.num_items)
    events = torch.zeros(())
    start = 0.0
    for number in range(_WARM_UP_STEPS + steps):
        if number == _WARM_UP_STEPS:
            phases.seconds.clear()
            events.zero_()
            dist.barrier()
            start = time.perf_counter()
        with phases("input"):
            batch = next(batches)
        events += step(batch, number, epoch=_renewing_epoch(parts)).num_events.cpu()
    seconds = time.perf_counter() - start
    milliseconds = {name: 1000 * spent / steps for name, spent in phases.seconds.items()}
    milliseconds["other"] = 1000 * seconds / steps - sum(milliseconds.values())
    return {
        "interactions_per_second": events.item() / seconds,
        "interactions_per_step": events.item() / steps,
        "milliseconds_per_step": 1000 * seconds / steps,
        "milliseconds_by_phase": milliseconds,
        "peak_memory_mib": _peak_memory_mib(),
        "steps": steps,
        "ranks": parts.runtime.world_size,
        "threads_per_rank": torch.get_num_threads(),
        "device": _device_name(parts.runtime.device),
        "torch": torch.__version__,
    }


def _renewing_epoch(parts: Parts) -> int:
    """An epoch in which the enhancer does all of its work."""
    enhancer = parts.config.objective.enhancer
    return 0 if enhancer is None else enhancer.warmup_epochs - 1


def _peak_memory_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _device_name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    )


def _show(figures: dict[str, Any]) -> None:
    table = Table(title=f"{figures['interactions_per_second']:,.0f} interactions/s on {figures['ranks']} rank(s)")
    table.add_column("phase")
    table.add_column("ms per step", justify="right")
    table.add_column("share", justify="right")
    for name, spent in figures["milliseconds_by_phase"].items():
        table.add_row(name, f"{spent:.1f}", f"{spent / figures['milliseconds_per_step']:.0%}")
    table.add_row("all", f"{figures['milliseconds_per_step']:.1f}", "")
    console = Console()
    console.print(table)
    console.print(f"{figures['interactions_per_step']:,.0f} per step, peak {figures['peak_memory_mib']:,.0f} MiB")


if __name__ == "__main__":
    main()

"""``unigrf bench train``: how fast a configuration trains here, where the time goes, and what a change costs."""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import time
from itertools import chain, repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from unigrf_dist.phases import Phases
from unigrf_dist.ranks.worker import run_worker
from unigrf_dist.train.build import Parts, build_parts
from unigrf_dist.train.loop import build_step, build_stream

_WARM_UP_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="unigrf_dist.programs.bench", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--versus", action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--local_rank", type=int)
    arguments = parser.parse_args()
    run_worker(lambda: _bench(arguments))


def _bench(arguments: argparse.Namespace) -> int:
    from unigrf_dist.config import load_config
    from unigrf_dist.ranks.runtime import start

    configs = [load_config(arguments.config, arguments.set)]
    if arguments.versus:
        configs.append(load_config(arguments.config, [*arguments.set, *arguments.versus]))
    runtime = start(configs[0].train.timeout_seconds)
    subjects = [Subject(build_parts(config, runtime, Phases(timed=True))) for config in configs]
    measure(subjects, arguments.steps)
    if runtime.is_main:
        metrics = [subject.metrics() for subject in subjects]
        report = metrics[0]
        if arguments.versus:
            report["versus"] = {"set": arguments.versus, **metrics[1], **compare(*subjects)}
        _show(report)
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


class Subject:
    """A configuration under measurement; its steps are collective.

    Args:
        parts: model and data, with timed phases.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, stream = parts, build_stream(parts)
        self.step = build_step(parts, stream)
        self.batches = chain.from_iterable(stream.epoch(epoch) for epoch, _ in enumerate(repeat(None)))
        if self.step.candidates is not None:
            # What is measured is a step after the enhancer's warm-up.
            self.step.candidates.fill(parts.dataset.num_items)
        self.events = torch.zeros(())
        self.seconds: list[float] = []
        self.phases: list[dict[str, float]] = []

    def run(self, number: int) -> None:
        """Train step ``number``, from 0; the warm-up is not counted."""
        if number == _WARM_UP_STEPS:
            self.events.zero_()
            self.seconds.clear()
            self.phases.clear()
        self.parts.phases.seconds.clear()
        dist.barrier()
        start = time.perf_counter()
        with self.parts.phases("input"):
            batch = next(self.batches)
        self.events += self.step(batch, number, epoch=_renewing_epoch(self.parts)).num_events.cpu()
        self.seconds.append(time.perf_counter() - start)
        self.phases.append(dict(self.parts.phases.seconds))

    def metrics(self) -> dict[str, Any]:
        """Interactions per second over all ranks, milliseconds per step and phase, peak memory; of this rank."""
        steps, total, events = len(self.seconds), sum(self.seconds), self.events.item()
        names = {name: None for spent in self.phases for name in spent}
        phases = {name: 1000 * sum(spent.get(name, 0.0) for spent in self.phases) / steps for name in names}
        phases["other"] = 1000 * total / steps - sum(phases.values())
        return {
            "interactions_per_second": events / total,
            "interactions_per_step": events / steps,
            "milliseconds_per_step": 1000 * total / steps,
            "milliseconds_by_phase": phases,
            "peak_memory_mib": _peak_memory_mib(),
            "steps": steps,
            "ranks": self.parts.runtime.world_size,
            "threads_per_rank": torch.get_num_threads(),
            "device": _device_name(self.parts.runtime.device),
            "torch": torch.__version__,
        }


def measure(subjects: list[Subject], steps: int) -> None:
    """Train ``steps`` steps of each after a warm-up, in turns; collective.

    The same step of two subjects has the same batch and follows at once, so that a machine that is now fast and
    now slow is so for both.
    """
    for number in range(_WARM_UP_STEPS + steps):
        for subject in subjects if number % 2 else reversed(subjects):
            subject.run(number)


def compare(first: Subject, second: Subject) -> dict[str, Any]:
    """How much longer a step of ``second`` takes than the same one of ``first``.

    Medians, for a machine that is put aside for a moment spoils a mean. The interval of the ratio is the 95 % one
    of order statistics and assumes nothing about how times are distributed.
    """
    ratios = sorted(b / a for a, b in zip(first.seconds, second.seconds, strict=True))
    middle, margin = len(ratios) / 2, 1.96 * math.sqrt(len(ratios)) / 2
    low, high = max(math.floor(middle - margin), 0), min(math.ceil(middle + margin), len(ratios) - 1)
    pairs = list(zip(first.phases, second.phases, strict=True))
    names = {name: None for pair in pairs for spent in pair for name in spent}
    return {
        "ratio": {"median": median(ratios), "low": ratios[low], "high": ratios[high]},
        "milliseconds_more_by_phase": {
            name: 1000 * median(b.get(name, 0.0) - a.get(name, 0.0) for a, b in pairs) for name in names
        },
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


def _show(report: dict[str, Any]) -> None:
    console = Console()
    table = Table(
        "phase", title=f"{report['interactions_per_second']:,.0f} interactions/s on {report['ranks']} rank(s)"
    )
    table.add_column("ms per step", justify="right")
    table.add_column("share", justify="right")
    first, second = _phases(report), _phases(report.get("versus"))
    if second:
        table.add_column(f"with {' '.join(report['versus']['set'])}", justify="right")
        table.add_column("median difference", justify="right")
    for name in [*(name for name in {**first, **second} if name != "all"), "all"]:
        cells = ["", ""]
        if name in first:
            cells = [f"{first[name]:.1f}", f"{first[name] / report['milliseconds_per_step']:.0%}"]
        if second:
            more = report["versus"]["milliseconds_more_by_phase"].get(name)
            cells += [f"{second[name]:.1f}" if name in second else "", "" if more is None else f"{more:+.1f}"]
        table.add_row(name, *cells)
    console.print(table)
    both = " for both" if "versus" in report else ""
    memory = f"peak {report['peak_memory_mib']:,.0f} MiB{both}"
    console.print(f"{report['interactions_per_step']:,.0f} per step, {memory}")
    if "versus" in report:
        ratio = report["versus"]["ratio"]
        console.print(
            f"A step takes {ratio['median']:.3f} times as long with the change "
            f"(median; 95 % interval {ratio['low']:.3f} to {ratio['high']:.3f})"
        )


def _phases(metrics: dict[str, Any] | None) -> dict[str, float]:
    """Milliseconds of a step by phase, and of all."""
    return {} if metrics is None else {**metrics["milliseconds_by_phase"], "all": metrics["milliseconds_per_step"]}


if __name__ == "__main__":
    main()

"""Times of training steps by phase, of one configuration or of two in turns."""

from __future__ import annotations

import math
import platform
import resource
import time
from itertools import chain, repeat
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from unigrf_dist.train.build import Parts
from unigrf_dist.train.loop import build_step, build_stream

_WARM_UP_STEPS = 5


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

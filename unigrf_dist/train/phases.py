"""Names for the parts of a step: in profiler traces always, as wall time when a benchmark asks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Phases:
    """``with phases("forward"): …`` marks a part of the step.

    Args:
        timed: also sum up wall seconds per name in ``seconds``. On CUDA the device is synchronised at each
            end, so only benchmarks do this.
    """

    def __init__(self, *, timed: bool = False) -> None:
        self.timed = timed
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with torch.profiler.record_function(name):
            start = self._now() if self.timed else 0.0
            yield
            if self.timed:
                self.seconds[name] += self._now() - start

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

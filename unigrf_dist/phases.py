"""Names for the parts of a step: in profiler traces always, as wall time when a benchmark asks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Phases:
    """``with phases("forward"): …`` marks a part of the step; parts may lie inside parts.

    Args:
        timed: also sum up wall seconds per name in ``seconds``, each without the parts inside it. On CUDA the
            device is synchronised at each end, so only benchmarks do this.
    """

    def __init__(self, *, timed: bool = False) -> None:
        self.timed = timed
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = [0.0]  # seconds spent in the parts inside each open one

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with torch.profiler.record_function(name):
            if not self.timed:
                yield
                return
            start = self._now()
            self._inside.append(0.0)
            yield
            spent = self._now() - start
            self.seconds[name] += spent - self._inside.pop()
            self._inside[-1] += spent

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

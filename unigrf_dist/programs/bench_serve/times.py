"""What lists cost in this process, by the ways to come to them.

A call is a batch of users; every call asks for other users, as long as there are some.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from unigrf_dist.data.sequences import Sequences
from unigrf_dist.programs.bench_serve.drawn import drawn_histories
from unigrf_dist.serve import Recommender
from unigrf_dist.serve.kept import fresh_read
from unigrf_dist.serve.loaded import LoadedRun

LIST_LENGTH = 10
_WARM_UP = 3
_KEPT_BYTES = 4 << 30


class Shape(NamedTuple):
    """What is asked for: users of a call, events of each history, candidates, items of the catalogue."""

    users: int
    events: int
    candidates: int
    items: int


@dataclass(frozen=True)
class Times:
    """What requests took.

    Attributes:
        cpu_ms: mean CPU milliseconds of a request, of all threads of the process that answers.
        p50_ms, p95_ms, p99_ms: wall milliseconds until the answer of a call or request.
        per_second: requests answered in a second.
    """

    cpu_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_second: float

    @staticmethod
    def of(walls: Sequence[float], *, cpu: float, requests: int, wall: float) -> Times:
        """From the seconds of each call, CPU seconds of all, requests answered, and seconds from first to last."""
        p50, p95, p99 = (1e3 * np.percentile(walls, (50, 95, 99))).tolist()
        return Times(1e3 * cpu / requests, p50, p95, p99, requests / wall)

    def to_json(self) -> dict[str, Any]:
        """All attributes."""
        return asdict(self)


def ways(run: LoadedRun, shape: Shape, repeats: int) -> dict[str, Times]:
    """What each way takes for one shape, on one thread.

    ``cold`` reads the history and keeps nothing; ``+ 1 event`` has kept all but the last event; ``kept`` has
    kept the whole history; ``two passes`` reads the history for retrieval and once more for ranking, as two
    models of the same size would.
    """
    torch.set_num_threads(1)
    cold, keeping = Recommender.of(run), Recommender.of(run, kept_bytes=_KEPT_BYTES)
    options = cold.options(k=LIST_LENGTH, candidates=shape.candidates)
    parts = _calls(shape, repeats)

    def lists(recommender: Recommender, part: Sequences, *, named: bool = False) -> None:
        found = recommender.lists(part, None, options, part.user_ids.tolist() if named else None)
        for user in range(part.num_users):
            recommender.entries(found, user)

    @torch.inference_mode()
    def two_passes(part: Sequences) -> None:
        last = part.timestamps[part.offsets[1:] - 1]
        for user in range(part.num_users):
            window, moment = part.take(slice(user, user + 1)), torch.from_numpy(last[user : user + 1])
            fresh_read(run.model, run.tables, window, moment)
        lists(cold, part)

    found = {"two passes": _timed(two_passes, parts), "cold": _timed(lambda part: lists(cold, part), parts)}
    if shape.events > 1:
        for part in parts:
            before = part.cut(slice(None), np.zeros_like(part.lengths), part.lengths - 1)
            lists(keeping, before, named=True)
        found["+ 1 event"] = _timed(lambda part: lists(keeping, part, named=True), parts, warm_up=0)
    for part in parts:
        lists(keeping, part, named=True)
    found["kept"] = _timed(lambda part: lists(keeping, part, named=True), parts)
    return found


def _calls(shape: Shape, repeats: int) -> list[Sequences]:
    everyone = drawn_histories(shape.users * repeats, shape.events, shape.items, seed=1)
    return [everyone.take(slice(n * shape.users, (n + 1) * shape.users)) for n in range(repeats)]


def _timed(call: Callable[[Sequences], None], parts: Sequence[Sequences], *, warm_up: int = _WARM_UP) -> Times:
    for part in parts[:warm_up]:
        call(part)
    walls, cpu, began = [], time.process_time(), time.perf_counter()
    for part in parts:
        start = time.perf_counter()
        call(part)
        walls.append(time.perf_counter() - start)
    spent, wall = time.process_time() - cpu, time.perf_counter() - began
    return Times.of(walls, cpu=spent, requests=sum(part.num_users for part in parts), wall=wall)

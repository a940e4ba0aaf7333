"""What a day costs to append, beside preparing its base: ``python -m tools.append_cost --events 10000000``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.prepare.append import append
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping

_DAY = 86_400


def main() -> None:
    """Prepare a base, append a day of a share of it, and print what both cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="events of the base")
    parser.add_argument("--share", type=float, default=0.01, help="events of the day, as a share of the base's")
    arguments = parser.parse_args()
    count, random = arguments.events, np.random.default_rng(1)
    columns = ColumnMapping(behaviours=["rating"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "base.parquet", count, users=count // 50, items=count // 20, time=0, random=random)
        day = int(arguments.share * count)
        _write(folder / "day.parquet", day, users=count // 50, items=count // 20, time=_DAY, random=random)
        base = _timed(lambda: prepare("parquet", raw=folder / "base.parquet", out=folder / "set", columns=columns))
        new = _timed(lambda: append("parquet", raw=folder / "day.parquet", into=folder / "set"))
    sys.stdout.write(f"{count:,} events prepared: {base[0]:.2f} s of CPU, {base[1]:.2f} s\n")
    sys.stdout.write(f"{day:,} events appended: {new[0]:.3f} s of CPU, {new[1]:.3f} s, ")
    sys.stdout.write(f"{new[0] / base[0]:.1%} of the CPU time\n")


def _write(file: Path, count: int, *, users: int, items: int, time: int, random: np.random.Generator) -> None:
    columns = {
        "user_id": random.integers(users, size=count),
        "item_id": np.minimum(random.zipf(1.2, count), items),
        "timestamp": time + random.integers(_DAY, size=count),
        "rating": random.integers(1, 6, size=count),
    }
    pq.write_table(pa.table(columns), file)


def _timed(action: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()

"""Metrics of a peer's lists, by the functions of `unigrf evaluate`: ``python -m tools.peers.score --help``.

A file of lists has the columns ``user``, ``rank`` (1 is best) and ``item``. A target that is not in its user's
list counts as a miss, so only cuts up to the length of the lists can be told, and no MRR.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.metric import Metric
from unigrf_dist.evaluate.metrics import NOT_FOUND, retrieval_metrics


def metrics_of_lists(targets: pa.Table, lists: pa.Table, bootstrap: Bootstrap) -> dict[str, Metric]:
    """Hit rates and NDCG of one held-out item per user.

    Args:
        targets: columns ``user`` and ``item``, one row per user.
        lists: columns ``user``, ``rank`` and ``item``.
        bootstrap: how the confidence intervals are made.
    """
    found = targets.select(["user", "item"]).join(lists, keys=["user", "item"], join_type="left outer")
    if found.num_rows != targets.num_rows:
        raise ValueError("a list names an item twice")
    ranks = torch.from_numpy(found.sort_by("user")["rank"].fill_null(NOT_FOUND).to_numpy().copy()).long()
    longest = lists["rank"].to_numpy().max()
    metrics = retrieval_metrics(ranks, bootstrap)
    return {name: metric for name, metric in metrics.items() if "@" in name and int(name.split("@")[1]) <= longest}


def main() -> None:
    """Print the metrics of ``--lists`` for the held-out events of ``--of``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", type=Path, required=True, help="folder that tools.peers.split wrote")
    parser.add_argument("--lists", type=Path, required=True, help="Parquet file of a peer's lists")
    parser.add_argument("--of", choices=["validation", "test"], default="test")
    arguments = parser.parse_args()
    targets = pq.read_table(arguments.split / f"{arguments.of}.parquet")
    for name, metric in metrics_of_lists(targets, pq.read_table(arguments.lists), Bootstrap()).items():
        sys.stdout.write(f"{name:8} {metric.value:.4f} ({metric.low:.4f}–{metric.high:.4f})\n")


if __name__ == "__main__":
    main()

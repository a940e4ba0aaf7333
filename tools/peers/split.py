"""A data set's split as plain tables for other libraries: ``python -m tools.peers.split --data D --out DIR``.

``training.parquet`` has the columns ``user``, ``position``, ``item``, ``timestamp`` (seconds), one row per
training event; ``validation.parquet`` and ``test.parquet`` the held-out event of each user. All ids are dense.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.data import open_dataset
from unigrf_dist.data.dataset import Dataset, RowGroupReader
from unigrf_dist.data.sequences import IntArray, Sequences, ragged_index
from unigrf_dist.data.split import SPLITS


def write_split(dataset: Dataset, out: Path) -> None:
    """Write the three tables of the events that are trained on, and of those that are held out.

    Args:
        dataset: data set with its split.
        out: folder; made if there is none.
    """
    out.mkdir(parents=True, exist_ok=True)
    tables: dict[str, list[pa.Table]] = {name: [] for name in ("training", *SPLITS)}
    reader, groups = RowGroupReader(dataset), dataset.row_groups
    for shard, group in zip(groups.shard, groups.group, strict=True):
        read = reader.read(int(shard), int(group))
        trained = dataset.split.num_training_events(read)
        users = np.arange(read.num_users)
        tables["training"].append(_events(read, users, np.zeros_like(trained), trained))
        for split in SPLITS:
            users, position = dataset.split.held_out(read, split)
            tables[split].append(_events(read, users, position, position + 1))
    for name, parts in tables.items():
        pq.write_table(pa.concat_tables(parts), out / f"{name}.parquet")


def _events(read: Sequences, users: IntArray, starts: IntArray, stops: IntArray) -> pa.Table:
    first = read.offsets[users]
    _, index = ragged_index(first + starts, first + stops)
    counts = stops - starts
    return pa.table(
        {
            "user": np.repeat(read.user_ids[users], counts),
            "position": index - np.repeat(first, counts),
            "item": read.item_ids[index],
            "timestamp": read.timestamps[index],
        }
    )


def main() -> None:
    """Write the split of ``--data`` to ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set that `unigrf prepare` made")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    arguments = parser.parse_args()
    write_split(open_dataset(arguments.data), arguments.out)
    sys.stdout.write(f"written to {arguments.out}\n")


if __name__ == "__main__":
    main()

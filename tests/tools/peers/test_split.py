"""The tables for other libraries hold each event once, in the split that evaluation uses."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from tools.peers.split import write_split
from unigrf_dist.data import open_dataset
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping

LOG = """user,item,when
a,x,1
a,y,2
a,z,2
a,w,9
b,x,5
b,z,4
c,x,1
c,y,2
c,x,3
"""


def test_the_last_two_events_of_who_has_three_are_held_out(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    columns = ColumnMapping(user="user", item="item", timestamp="when")
    prepare("csv", raw=tmp_path / "log.csv", out=tmp_path / "set", columns=columns)
    dataset = open_dataset(tmp_path / "set")
    write_split(dataset, tmp_path / "split")
    items = dict(enumerate(dataset.raw_item_ids().to_pylist()))

    def rows(name: str) -> list[tuple[int, str, int]]:
        table = pq.read_table(tmp_path / "split" / f"{name}.parquet").to_pylist()
        return sorted((row["position"], items[row["item"]], row["timestamp"]) for row in table)

    assert rows("training") == [(0, "x", 1), (0, "x", 1), (0, "z", 4), (1, "x", 5), (1, "y", 2)]
    assert rows("validation") == [(1, "y", 2), (2, "z", 2)]
    assert rows("test") == [(2, "x", 3), (3, "w", 9)]

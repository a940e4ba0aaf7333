"""The tables for other libraries hold each event once, in the split that evaluation uses."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from tools.peers.split import write_split
from unigrf_dist.data import open_dataset
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping

LOG = """user,item,when
1,10,1
1,20,2
1,30,2
1,40,9
2,10,5
2,30,4
3,10,1
3,20,2
3,10,3
"""


def test_the_last_two_events_of_who_has_three_are_held_out(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    columns = ColumnMapping(user="user", item="item", timestamp="when")
    prepare("csv", raw=tmp_path / "log.csv", out=tmp_path / "set", columns=columns)
    dataset = open_dataset(tmp_path / "set")
    write_split(dataset, tmp_path / "split")
    items = dict(enumerate(dataset.raw_item_ids().to_pylist()))

    def rows(name: str) -> list[tuple[int, int, int]]:
        table = pq.read_table(tmp_path / "split" / f"{name}.parquet").to_pylist()
        return sorted((row["position"], items[row["item"]], row["timestamp"]) for row in table)

    assert rows("training") == [(0, 10, 1), (0, 10, 1), (0, 30, 4), (1, 10, 5), (1, 20, 2)]
    assert rows("validation") == [(1, 20, 2), (2, 30, 2)]
    assert rows("test") == [(2, 10, 3), (3, 40, 9)]

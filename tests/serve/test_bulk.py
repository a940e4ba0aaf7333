"""Lists of many users by several ranks, which share users and catalogue: the file of one process, to the byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.serve.drawn_run import write_drawn_run
from tests.spawn import run_ranks
from unigrf_dist.cli import main
from unigrf_dist.data import Dataset, open_dataset
from unigrf_dist.programs import recommend_rank
from unigrf_dist.programs.recommend_rank import Order, write_file
from unigrf_dist.serve import Recommender, bulk
from unigrf_dist.synthetic import synthesize

RANKS = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("bulk") / "set"
    synthesize(out, num_users=23, num_items=41, mean_length=8)
    return open_dataset(out)


@pytest.fixture(scope="module")
def order(dataset: Dataset) -> Order:
    run = dataset.path.parent / "run"
    write_drawn_run(run, dataset, files=2, model__item_features=["group"], model__user_features=["taste"])
    return Order(
        run=run,
        user=None,
        users=None,
        histories=None,
        out=run.parent / "one.parquet",
        k=6,
        candidates=9,
        seen="exclude",
        blend={"rating >= 4": 0.5},
        at=None,
        explain=True,
        checkpoint="best",
        batch_users=4,
        overrides=None,
    )


def write_files(orders: list[str]) -> tuple[int, bool]:
    """One rank; returns the rows of the item table that it holds, and whether it never fetched all others."""
    from unigrf_dist.ranks.collective import Collective

    torch.set_num_threads(2)  # ranks of a machine have fewer threads than one process
    for text in orders:
        write_file(Order.from_json(text), Collective())
    held = Recommender(Order.from_json(orders[0]).run, ranks=Collective()).run.tables
    own = held.weights["item"]
    asked = torch.tensor([[40, 0], [7, 40]])
    fetched = held.of(asked).weights["item"]
    return len(own), len(fetched) == 3


def test_ranks_write_the_bytes_that_one_process_writes(
    order: Order, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = order.run.parent
    raw = dataset.raw_item_ids().to_pylist()
    known = [[raw[3], {"rating": 4.0}, 50], [raw[9], {"rating": 1.0}, 70]]
    lines = [{"history": known, "at": 90}, {"id": "nobody", "history": []}]
    (folder / "new.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    some = Recommender(order.run).users.raw_ids().to_pylist()[:5]
    orders = [
        order,
        replace(order, user=["99998", *map(str, some), "99999"], at=2_000_000_000, seen="keep"),
        replace(order, histories=folder / "new.jsonl"),
    ]
    together = [
        replace(each, out=folder / f"{number}-{size}.parquet", batch_users=size)
        for number, each in enumerate(orders)
        for size in (1, 5)
    ]
    held = run_ranks(RANKS, write_files, [each.to_json() for each in together])
    assert held == [(13, True), (14, True), (14, True)]
    for number, each in enumerate(orders):
        write_file(replace(each, out=folder / "one.parquet", batch_users=64))
        expected = (folder / "one.parquet").read_bytes()
        assert len(pq.read_table(folder / "one.parquet")) == 6 * (23, 7, 2)[number]
        for size in (1, 5):
            assert (folder / f"{number}-{size}.parquet").read_bytes() == expected
    assert "2 users are not in the data set and get popular items: 99998, 99999" in capsys.readouterr().err


def test_row_groups_are_cut_alike_for_any_batch_size(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_ROWS_OF_A_GROUP", 40)
    files = []
    assert order.out is not None
    for size in (1, 3, 64):
        write_file(replace(order, batch_users=size))
        files.append(order.out.read_bytes())
        rows = pq.ParquetFile(order.out).metadata
        assert [rows.row_group(n).num_rows for n in range(rows.num_row_groups)] == [40, 40, 40, 18]
    assert files[0] == files[1] == files[2]


def test_ranks_are_started_for_the_whole_order_and_leave_nothing_half_written(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def launch(module: str, arguments: list[str], *, ranks: int) -> int:
        started.append((module, Order.from_json(arguments[1]), ranks))
        (tmp_path / "lists.parquet.partial").write_text("half")
        return 2

    monkeypatch.setattr("unigrf_dist.ranks.launch.launch", launch)
    words = ["--run", str(order.run), "--user", "7", "--blend", "rating >= 4=0.5", "--k", "6", "--candidates", "9"]
    place = ["--out", str(tmp_path / "lists.parquet")]
    monkeypatch.setattr("sys.argv", ["unigrf", "recommend", *words, *place, "--ranks", "4", "--explain"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    ((module, given, ranks),) = started
    assert (module, ranks) == (recommend_rank.__name__, 4)
    assert given == replace(order, user=["7"], out=tmp_path / "lists.parquet", batch_users=64)
    assert list(tmp_path.iterdir()) == []


def test_lists_in_the_terminal_come_from_one_process(
    order: Order, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["unigrf", "recommend", "--run", str(order.run), "--user", "7", "--ranks", "2"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--ranks 2 writes a file; name it with --out" in capsys.readouterr().err

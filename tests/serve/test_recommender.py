"""Lists of a stored run against evaluation, and against one whole pass for every candidate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from tests.data.small_sets import RATINGS, Event, distinct_users, write_users
from tests.serve.stored_run import MAX_EVENTS, store_run
from tests.spawn import run_ranks
from unigrf_dist.cli import main
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.errors import UserError
from unigrf_dist.serve import Recommender
from unigrf_dist.serve.export.write import export_run

USERS = distinct_users([3, 9, 1, 4, 12, 5, 2, 7, 6, 10] * 4)
NUM_ITEMS = sum(map(len, USERS))
CASES: dict[str, dict[str, Any]] = {
    "hstu": {},
    "llama_visible_times": {
        "model__backbone": "llama",
        "model__query_time_visible": True,
        "model__behaviours_carry_items": True,
        "objective__retrieval__normalize": False,
    },
}
Stored = tuple[Recommender, dict[str, Any]]


@pytest.fixture(scope="module", params=CASES)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    folder = tmp_path_factory.mktemp("serve")
    write_users(folder / "data", USERS)
    (said,) = run_ranks(1, store_run, str(folder / "run"), str(folder / "data"), CASES[request.param])
    return Recommender(folder / "run"), said


def raw(events: list[Event]) -> list[tuple]:
    """Events as a request brings them; raw item ids are ten times the dense ones."""
    return [(10 * item, RATINGS[code], time) for item, code, time in events]


def held_out() -> list[tuple[int, list[Event], Event]]:
    return [(user, events[:-1], events[-1]) for user, events in enumerate(USERS) if len(events) >= 3]


def test_without_a_blend_the_lists_have_evaluations_hit_rate_and_ndcg(stored: Stored) -> None:
    recommender, said = stored
    ranks = []
    for _, history, (item, _, time) in held_out():
        entries = recommender.recommend(history=raw(history), at=time, k=50).entries
        ranks += [rank for rank, entry in enumerate(entries, start=1) if entry.item == 10 * item]
    users = len(held_out())
    assert ranks
    for k in (10, 50):
        gains = [1 / math.log2(1 + rank) for rank in ranks if rank <= k]
        assert len(gains) / users == pytest.approx(said["retrieval"][f"hr@{k}"], abs=1e-12)
        assert sum(gains) / users == pytest.approx(said["retrieval"][f"ndcg@{k}"], abs=1e-12)


def test_an_export_evaluates_as_training_does(stored: Stored, tmp_path: Path) -> None:
    recommender, said = stored
    assert recommender.run.dataset is not None
    export_run(recommender.run.dataset.path.parent / "run", tmp_path / "export", evaluate=True)
    card = (tmp_path / "export" / "README.md").read_text()
    for name, value in said["retrieval"].items():
        assert f"| {name} | {value:.4f} | " in card


def test_a_candidate_has_the_probability_that_evaluation_gives_the_event_at_that_moment(stored: Stored) -> None:
    recommender, said = stored
    for user, history, (item, _, time) in held_out():
        (entry,) = recommender.recommend(history=raw(history), at=time, k=1, allow=[10 * item]).entries
        expected = torch.tensor(said["logits"][user]).sigmoid().tolist()
        assert list(entry.probabilities.values()) == pytest.approx(expected, abs=1e-5)
        assert entry.log_retrieval == pytest.approx(0, abs=1e-6)


@torch.no_grad()
def test_lists_are_those_of_one_whole_pass_for_every_item(stored: Stored) -> None:
    recommender, _ = stored
    run, blend = recommender.run, {"rating >= 4": 0.5, "rating >= 2": -1.5}
    for history in (USERS[4], USERS[2]):
        at = history[-1][2] + 40_000
        window = history[-MAX_EVENTS:]
        rows = torch.tensor([[*event] for event in window])
        logits, query = [], None
        for item in range(NUM_ITEMS):
            items, codes, times = torch.cat([rows, torch.tensor([[item, 0, at]])]).T.contiguous()
            bounds = torch.tensor([0, len(items)])
            scores = run.model(run.tables.items[items], JaggedBatch(items, codes, times, bounds, bounds[:1]))
            logits.append(scores.ranking_logits[0])
            query = scores.queries[0]
        retrieval = run.config.objective.retrieval
        table = run.tables.items.double()
        compared = [table, query.double()]
        if retrieval.normalize:
            compared = [torch.nn.functional.normalize(each, dim=-1) for each in compared]
        cosines = compared[0] @ compared[1] / retrieval.temperature
        cosines[[item for item, _, _ in history]] = -torch.inf
        log_p = cosines.log_softmax(0)
        tasks = torch.stack(logits).double()
        final = log_p + torch.nn.functional.logsigmoid(tasks) @ torch.tensor([0.5, -1.5]).double()
        candidates = log_p.topk(20).indices
        best = candidates[final[candidates].argsort(descending=True)][:8]
        entries = recommender.recommend(history=raw(history), at=at, k=8, candidates=20, blend=blend).entries
        assert [entry.item for entry in entries] == (10 * best).tolist()
        assert [entry.score for entry in entries] == pytest.approx(final[best].tolist(), rel=1e-5, abs=1e-4)
        assert [entry.log_retrieval for entry in entries] == pytest.approx(
            log_p[best].tolist(), rel=1e-5, abs=1e-4
        )
        probabilities = [list(entry.probabilities.values()) for entry in entries]
        assert torch.tensor(probabilities) == pytest.approx(tasks[best].sigmoid().numpy(), abs=1e-5)


def test_users_of_the_data_set_get_what_their_history_gets(stored: Stored) -> None:
    recommender, _ = stored
    ours = recommender.recommend(user=104)
    assert ours == recommender.recommend(history=raw(USERS[4])[::-1])
    assert not {entry.item for entry in ours} & {item for item, _, _ in raw(USERS[4])}
    kept = recommender.recommend(user=104, k=NUM_ITEMS, candidates=NUM_ITEMS, seen="keep")
    assert {entry.item for entry in kept} >= {item for item, _, _ in raw(USERS[4])}


def test_allowed_and_denied_items_decide_what_may_appear(stored: Stored) -> None:
    recommender, _ = stored
    items = [entry.item for entry in recommender.recommend(user=100, k=6)]
    lists = recommender.recommend(user=100, k=6, allow=[*items[1:4], 5], deny=[items[2]])
    assert [entry.item for entry in lists] == [items[1], items[3]]
    assert sum(math.exp(entry.log_retrieval) for entry in lists) == pytest.approx(1, abs=1e-6)


def test_who_is_unknown_gets_popular_items_and_unknown_items_are_counted(stored: Stored) -> None:
    recommender, _ = stored
    nobody = recommender.recommend(user=7, k=3)
    assert nobody.source == "popularity"
    counts = recommender.run.dataset.training_counts().tolist()
    best = sorted(range(NUM_ITEMS), key=lambda item: (-counts[item], item))[:3]
    assert [entry.item for entry in nobody] == [10 * item for item in best]
    partly = recommender.recommend(history=[(5, RATINGS[0], 1), *raw(USERS[4])])
    assert partly.num_unknown_items == 1
    assert partly.entries == recommender.recommend(user=104).entries
    assert recommender.recommend(history=[(5, RATINGS[0], 1)]).source == "popularity"


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["unigrf", "recommend", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_file_is_the_same_for_any_batch_size(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recommender, _ = stored
    run = recommender.run.dataset.path.parent / "run"
    (tmp_path / "users").write_text("".join(f"{100 + user}\n" for user in reversed(range(len(USERS)))) + "7\n")
    tables = []
    for size in (1, 3, 64):
        words = ("--users", tmp_path / "users", "--k", 12, "--explain", "--batch-users", size)
        assert command(monkeypatch, "--run", run, *words, "--out", tmp_path / "lists.parquet") == 0
        tables.append(pq.read_table(tmp_path / "lists.parquet"))
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    rows = tables[0].to_pylist()
    assert len(rows) == 12 * (len(USERS) + 1)
    assert [row["user"] for row in rows[::12]] == [*range(100, 100 + len(USERS)), 7]
    assert rows[-1]["source"] == "popularity"
    assert rows[-1]["probability[rating >= 4]"] is None
    own = recommender.recommend(user=103, k=12).entries
    assert [row["item"] for row in rows[36:48]] == [entry.item for entry in own]
    assert "1 users are not in the data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--all"], "name it with --out"),
        (["--all", "--user", "100", "--out", "{out}"], "by one of"),
        (["--user", "abc"], "64-bit integers"),
        (["--user", "100", "--k", "9", "--candidates", "8"], "candidates = 8 is below k = 9"),
        (["--user", "100", "--blend", "rating >= 5=1"], "ranking tasks are: rating >= 4, rating >= 2"),
        (["--user", "100", "--at", "1"], "before the last event"),
        (["--users", "absent", "--out", "{out}"], "absent: can't be read"),
        (["--all", "--out", "nowhere/lists.parquet"], "can't be written"),
        (["--histories", "{bad}", "--out", "{out}"], "line 2: event 1 of the history: behaviour {'rating': 9.0}"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(
    stored: Stored,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"history": []}\n{"history": [[10, {"rating": 9.0}, 5]]}\n')
    filled = [word.replace("{out}", str(tmp_path / "o.parquet")).replace("{bad}", str(bad)) for word in words]
    run = stored[0].run.dataset.path.parent / "run"
    assert command(monkeypatch, "--run", run, *filled) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == [bad]


def test_a_history_that_is_none_is_refused(stored: Stored) -> None:
    with pytest.raises(UserError, match="event 1 of the history"):
        stored[0].recommend(history=[(10, RATINGS[0], 1.5)])
    with pytest.raises(UserError, match="either user or history"):
        stored[0].recommend()

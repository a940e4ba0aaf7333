"""Histories kept between requests give what is computed from the first event on."""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from tests.serve.conftest import USERS
from tests.serve.stored_run import MAX_EVENTS
from unigrf_dist.data.sequences import Sequences
from unigrf_dist.serve import Recommender
from unigrf_dist.serve.kept import KeptHistories
from unigrf_dist.serve.lists import Lists

NUM_ITEMS = sum(map(len, USERS))
# Three users' histories at most, so that the fourth one pushes somebody out.
KEPT_BYTES = 3 * 6000
Row = tuple[int, int, int]


def history(rows: list[Row]) -> Sequences:
    """A history of dense items, behaviours and times."""
    items, behaviours, times = np.array(sorted(rows, key=lambda row: row[2])).T
    return Sequences(
        np.zeros(1, np.int64), np.array([0, len(rows)]), items.copy(), behaviours.astype(np.int16), times.copy()
    )


def change(rows: list[Row], action: str, random: Random) -> None:
    """What ``append`` and ``late`` do to a history; the other actions do nothing to it."""
    for _ in range(random.randint(1, 3) if action == "append" else 0):
        rows.append((random.randrange(NUM_ITEMS), random.randrange(5), rows[-1][2] + random.randrange(900)))
    if action == "late":
        rows.insert(0, (random.randrange(NUM_ITEMS), random.randrange(5), rows[0][2] - 10))


def same(ours: Lists, theirs: Lists) -> None:
    assert torch.equal(ours.items, theirs.items)
    for name in ("scores", "log_retrieval", "probabilities"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("versions", "seed"), [(("old", "new"), 1), (("visible", "visible"), 2)])
def test_any_order_of_appending_evicting_sliding_and_swapping(
    runs: Path, versions: tuple[str, str], seed: int
) -> None:
    random = Random(seed)
    how: dict[str, int] = {"kept": 0, "extended": 0, "read": 0}
    models = [Recommender(runs / name) for name in versions]
    options = models[0].options(k=7, candidates=12, blend={"rating >= 4": 0.5})
    for _ in range(100):
        for model in models:
            model.stages.kept = KeptHistories(model.stages.model, model.stages.tables, max_bytes=KEPT_BYTES)
        events: dict[int, list[Row]] = {}
        current = 0
        for _ in range(random.randint(4, 8)):
            user = random.randrange(4)
            rows = events.setdefault(user, [(random.randrange(NUM_ITEMS), random.randrange(5), 500)])
            action = random.choice(["append", "append", "append", "late", "ask", "evict", "swap"])
            change(rows, action, random)
            if action == "evict":
                models[current].stages.kept.forget(user)
            current = 1 - current if action == "swap" else current
            whole = history(rows)
            at = np.array([whole.timestamps[-1] + random.choice([0, 40, 90_000])])
            model = models[current]
            same(model.lists(whole, at, options, [user]), model.lists(whole, at, options))
            assert model.stages.kept.num_bytes <= KEPT_BYTES
        for model in {id(each): each for each in models}.values():
            for name, count in model.stages.kept.counts.items():
                how[name] += count
    # All ways were taken; where the moment of a request is known, its last token is always read again.
    assert how["read"] > 50
    assert how["extended"] > 50
    assert (how["kept"] > 20) == (versions[0] == "old")


def test_a_new_event_costs_two_tokens_and_a_sliding_window_all(runs: Path) -> None:
    model = Recommender(runs / "old", kept_bytes=1 << 20)
    options = model.options(k=5, candidates=5)
    rows: list[Row] = [(3, 1, 10)]
    taken = []
    read = model.stages.model.backbone.extend

    def counted(tokens: torch.Tensor, *others: object) -> object:
        taken.append(len(tokens))
        return read(tokens, *others)  # type: ignore[arg-type]

    model.stages.model.backbone.extend = counted  # type: ignore[method-assign]
    for number in range(MAX_EVENTS + 1):
        model.lists(history(rows), None, options, ["somebody"])
        rows.append((20 + number, 2, 100 * number + 50))
    histories = taken[::2]
    assert taken[1::2] == [5] * (MAX_EVENTS + 1)
    assert histories == [2] * MAX_EVENTS + [2 * MAX_EVENTS]
    assert model.stages.kept.counts == {"extended": MAX_EVENTS - 1, "read": 2}


def test_the_least_recently_asked_for_is_forgotten_first(runs: Path) -> None:
    model = Recommender(runs / "old", kept_bytes=1 << 20)
    options, whole = model.options(k=1, candidates=1), history([(1, 1, 1), (2, 2, 2)])
    model.lists(whole, None, options, ["a"])
    one = model.stages.kept.num_bytes
    # Keys and values of 4 tokens in 2 blocks, 2 heads of 8, fp32, are most of it.
    assert one > 4 * 2 * 2 * 16 * 4
    model.stages.kept.max_bytes = 2 * one
    for name in ("b", "a", "c"):
        model.lists(whole, None, options, [name])
    assert len(model.stages.kept) == 2
    model.stages.kept.counts.clear()
    for name in ("a", "c", "b"):
        model.lists(whole, None, options, [name])
    assert model.stages.kept.counts == {"kept": 2, "read": 1}
    model.stages.kept.max_bytes = one - 1
    model.lists(history([(1, 1, 1), (2, 2, 2), (3, 3, 3)]), None, options, ["d"])
    assert len(model.stages.kept) == 2  # too large to be kept at all: nobody has to go for it


def test_parallel_requests_of_one_user_read_its_history_once(runs: Path) -> None:
    model = Recommender(runs / "old", kept_bytes=1 << 20)
    options, whole = model.options(k=3, candidates=3), history([(1, 1, 1), (2, 2, 2)])
    expected = model.lists(whole, None, options)
    answers: list[Lists] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        answers.append(model.lists(whole, None, options, ["one"]))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    for answer in answers:
        same(answer, expected)
    assert model.stages.kept.counts == {"kept": 7, "read": 1}
    assert not model.stages.kept._busy

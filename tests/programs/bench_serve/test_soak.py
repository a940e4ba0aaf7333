"""A soak asks a real server and finds nothing wrong; answers that are mixed, stale or missing it does find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.train.small_run import small_config
from unigrf_dist.programs.bench_serve.drawn import BEHAVIOURS, write_drawn_export
from unigrf_dist.programs.bench_serve.soak import Sent, judged, soak
from unigrf_dist.serve.export.read import from_pretrained

CONFIG = small_config(data__path="drawn", data__max_events=5, objective__ranking=[{"rule": "rating >= 4"}])
HISTORY = [{"item": item, "behaviour": BEHAVIOURS[item % 5], "time": 100 + item} for item in (3, 7, 9)]


def test_a_server_that_is_swapped_loses_and_confuses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    result = soak(tmp_path, CONFIG, num_requests=400, num_items=60)
    assert (result.lost, result.wrong) == ([], [])
    assert sum(result.requests.values()) == 400
    assert set(result.requests) == {"recommend", "score", "events", "bad"}
    assert set(result.versions) == {"before", "after"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    for seed, name in enumerate(("before", "after")):
        write_drawn_export(folder / name, CONFIG, num_items=60, seed=seed)
    return folder


def answered(place: Path, by: str, **changes: Any) -> Sent:
    history = [(event["item"], event["behaviour"], event["time"]) for event in HISTORY]
    blend = {"rating >= 4": 0.5}
    entries = from_pretrained(place / by).recommend(history=history, at=200, k=10, blend=blend)
    answer = {"version": f"{by}/x", "entries": [entry._asdict() for entry in entries]}
    body = {"user": "a", "at": 200, "k": 10, "blend": blend}
    return Sent("recommend", body, HISTORY, False, 200, answer)._replace(**changes)


def test_what_is_wrong_is_found(place: Path) -> None:
    versions = {name: from_pretrained(place / name) for name in ("before", "after")}
    right = answered(place, "before")
    assert judged([right, answered(place, "after", swapped=True)], versions).wrong == []
    mixed = answered(place, "after")
    mixed.answer["version"] = "before/x"
    one_entry = answered(place, "before")
    one_entry.answer["entries"][4] = answered(place, "after").answer["entries"][4]
    turned = answered(place, "before")
    turned.answer["entries"][:2] = turned.answer["entries"][1::-1]
    stale = right._replace(history=HISTORY[:2])
    late = right._replace(swapped=True)
    refused = right._replace(status=500)
    taken = right._replace(kind="bad")
    for wrong in (mixed, one_entry, turned, stale, late, refused, taken):
        assert len(judged([wrong], versions).wrong) == 1
    assert len(judged([right._replace(status=None)], versions).lost) == 1

"""The server: right answers under load and over a swap, refusals that name the field, a door that is shut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.data.small_sets import RATINGS
from tests.serve.conftest import USERS
from unigrf_dist.errors import UserError
from unigrf_dist.serve import Recommender

pytest.importorskip("fastapi", reason="needs the extra serve")
import httpx
from fastapi.testclient import TestClient

from unigrf_dist.serve.server.app import Limits, make_app
from unigrf_dist.serve.server.running import listening, refuse_open_door
from unigrf_dist.serve.server.versions import Versions

LAST = USERS[4][-1][2]


@pytest.fixture
def served(runs: Path, tmp_path: Path) -> Path:
    """A link to the run ``old``."""
    link = tmp_path / "current"
    link.symlink_to(runs / "old")
    return link


def client(folder: Path, **limits: Any) -> TestClient:
    app = make_app(Versions(folder, kept_bytes=1 << 20), Limits(**limits))
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def asked(served: Path) -> Iterator[TestClient]:
    with client(served) as running:
        yield running


def event(item: int, time: int, code: int = 1) -> dict[str, Any]:
    return {"item": 10 * item, "behaviour": RATINGS[code], "time": time}


def switch(link: Path, run: Path) -> None:
    fresh = link.with_name("fresh")
    fresh.symlink_to(run)
    fresh.replace(link)


def test_a_list_is_that_of_the_recommender(asked: TestClient, runs: Path) -> None:
    body = {"user": 104, "at": LAST + 50, "k": 5, "blend": {"rating >= 4": 0.5}, "deny": [10]}
    answer = asked.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    expected = Recommender(runs / "old").recommend(
        user=104, at=LAST + 50, k=5, blend={"rating >= 4": 0.5}, deny=[10]
    )
    entries = answer.json()["entries"]
    assert [entry["item"] for entry in entries] == [entry.item for entry in expected]
    titles = [None if entry.item % 20 else f"Film {entry.item}" for entry in expected]
    assert [entry["title"] for entry in entries] == titles
    for ours, theirs in zip(entries, expected, strict=True):
        assert ours["score"] == pytest.approx(theirs.score, abs=1e-5)
        assert ours["probabilities"] == pytest.approx(theirs.probabilities, abs=1e-5)
    assert asked.post("/v1/recommend", json={"user": 7, "k": 2}).json()["source"] == "popularity"


def test_scores_are_those_of_a_list_of_the_whole_catalogue(asked: TestClient, runs: Path) -> None:
    items = [20, 5, 10 * USERS[4][0][0]]
    answer = asked.post("/v1/score", json={"user": 104, "items": items}).json()["entries"]
    everything = Recommender(runs / "old").recommend(user=104, k=1000, candidates=1000, seen="keep")
    whole = {entry.item: entry for entry in everything}
    assert answer[1] is None
    for entry in (answer[0], answer[2]):
        assert entry["log_retrieval"] == pytest.approx(whole[entry["item"]].log_retrieval, abs=1e-5)
        assert entry["probabilities"] == pytest.approx(whole[entry["item"]].probabilities, abs=1e-5)
        assert entry["score"] == pytest.approx(whole[entry["item"]].score, abs=1e-5)


def test_appended_events_count_at_once_for_known_and_new_users(asked: TestClient, runs: Path) -> None:
    fresh = Recommender(runs / "old")
    for user, before in ((104, USERS[4]), (9999, [])):
        asked.post("/v1/recommend", json={"user": user, "k": 3})
        said = asked.post("/v1/events", json={"user": user, "events": [event(2, LAST + 9), event(10**6, LAST)]})
        assert said.json()["num_events"] == len(before) + 1
        assert said.json()["num_unknown_items"] == 1
        history = [(10 * item, RATINGS[code], time) for item, code, time in before]
        expected = fresh.recommend(history=[*history, (20, RATINGS[1], LAST + 9)], k=4)
        answer = asked.post("/v1/recommend", json={"user": str(user), "k": 4}).json()
        assert [entry["item"] for entry in answer["entries"]] == [entry.item for entry in expected]
        assert answer["num_unknown_items"] == 1
        events = asked.post("/v1/history", json={"user": user, "last": 1}).json()["events"]
        assert events == [{"item": 20, "title": "Film 20", "behaviour": RATINGS[1], "time": LAST + 9}]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("recommend", {}, ["body"]),
        ("recommend", {"user": 1, "history": []}, ["body"]),
        ("recommend", {"user": 104, "k": 0}, ["body", "k"]),
        ("recommend", {"user": 104, "k": 9, "candidates": 8}, ["body", "candidates"]),
        ("recommend", {"user": "abc"}, ["body", "user"]),
        ("recommend", {"user": 104, "at": 1}, ["body", "at"]),
        ("recommend", {"user": 104, "blend": {"rating >= 5": 1}}, ["body", "blend"]),
        ("recommend", {"user": 104, "allow": ["x"]}, ["body", "allow"]),
        ("recommend", {"user": 104, "colour": 1}, ["body", "colour"]),
        (
            "recommend",
            {"history": [event(1, 1), {**event(1, 1), "behaviour": {"rating": 9}}]},
            ["body", "history", 1],
        ),
        ("score", {"user": 104, "items": []}, ["body", "items"]),
        ("score", {"user": 7, "items": [10]}, ["body", "user"]),
        ("events", {"user": 104, "events": [{"item": 1, "time": 3}]}, ["body", "events", 0, "behaviour"]),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(
    asked: TestClient, path: str, body: dict[str, Any], field: list[str | int]
) -> None:
    answer = asked.post(f"/v1/{path}", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == field


@pytest.mark.parametrize(
    "content", [b"{", b'{"user": NaN}', b'{"user": 1' + b"0" * 5000 + b"}", b'{"user": "\\ud800"}', b"[" * 9999]
)
def test_no_body_is_an_error_of_the_server(asked: TestClient, content: bytes) -> None:
    answer = asked.post("/v1/recommend", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text


def test_whoever_has_no_token_or_too_much_to_say_stays_outside(served: Path) -> None:
    with client(served, token="a-secret-of-sixteen", max_bytes=100) as running:
        assert running.get("/health").status_code == running.get("/ready").status_code == 200
        for given in ({}, {"authorization": "Bearer other"}, {"authorization": "Basic a-secret-of-sixteen"}):
            assert running.get("/v1/model", headers=given).status_code == 401
        running.headers["authorization"] = "Bearer a-secret-of-sixteen"
        assert running.get("/v1/model").status_code == 200
        assert running.post("/v1/recommend", json={"user": 104, "deny": [1] * 100}).status_code == 413
    with client(served) as running:
        assert running.get("/v1/model", headers={"host": "evil.example:8080"}).status_code == 403
        assert running.get("/v1/model", headers={"host": "[::1]:8080"}).status_code == 200
    with pytest.raises(UserError, match="needs a bearer token"):
        refuse_open_door("0.0.0.0", None)
    with pytest.raises(UserError, match="has 5 characters"):
        refuse_open_door("0.0.0.0", "short")
    refuse_open_door("::1", None)


def test_a_port_in_use_and_a_folder_that_is_neither_run_nor_export_are_refused(tmp_path: Path) -> None:
    with listening("127.0.0.1", 0) as door, pytest.raises(UserError, match="in use; choose another --port"):
        listening("127.0.0.1", door.getsockname()[1])
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError) as caught:
            Versions(folder, kept_bytes=0)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_queue_that_is_full_says_so_and_memory_for_events_ends(served: Path) -> None:
    with client(served, max_waiting=1, max_events=2) as running:
        entered, leave = threading.Event(), threading.Event()
        answers = running.app.state.server.batcher._answer

        def slow(bodies: Any) -> Any:
            entered.set()
            leave.wait(30)
            return answers(bodies)

        running.app.state.server.batcher._answer = slow
        with ThreadPoolExecutor() as pool:
            ask = lambda: running.post("/v1/recommend", json={"user": 104})  # noqa: E731
            first = pool.submit(ask)
            assert entered.wait(30)
            second = pool.submit(ask)
            while not running.app.state.server.batcher.num_waiting:
                pass
            refused = ask()
            leave.set()
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert first.result().status_code == second.result().status_code == 200
        assert running.post("/v1/events", json={"user": 1, "events": [event(1, 1)] * 2}).status_code == 200
        full = running.post("/v1/events", json={"user": 1, "events": [event(1, 1)]})
        assert full.status_code == 503
        assert "--max-events" in full.text


def test_none_of_many_requests_is_lost_or_wrong_while_versions_change(runs: Path, served: Path) -> None:
    """Each answer names its version, and is what that version gives by itself."""
    random = Random(7)
    versions = Versions(served, kept_bytes=40_000)
    app = make_app(versions, Limits(threads=2, max_batch=8))
    bodies = [
        {"user": 100 + random.randrange(len(USERS)), "k": random.choice([3, 5]), "blend": {"rating >= 2": 0.5}}
        for _ in range(300)
    ]

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as asking,
        ):
            tasks = [asyncio.create_task(asking.post("/v1/recommend", json=body)) for body in bodies[:150]]
            switch(served, runs / "new")
            swap = asyncio.create_task(asking.post("/v1/swap"))
            answers = list(await asyncio.gather(*tasks))
            assert (await swap).json()["changed"]
            answers += await asyncio.gather(*(asking.post("/v1/recommend", json=b) for b in bodies[150:]))
            assert (await asking.post("/v1/swap")).json()["changed"] is False
            (served.parent / "fresh").symlink_to(runs / "data")
            (served.parent / "fresh").replace(served)
            refused = await asking.post("/v1/swap")
            assert refused.status_code == 409
            assert "the version before goes on" in refused.text
            text = (await asking.get("/metrics")).text
            assert 'unigrf_requests_total{path="/v1/recommend",status="200"} 300.0' in text
            assert 'unigrf_swaps_total{outcome="changed"} 1.0' in text
            return answers

    answers = asyncio.run(run())
    alone = {name: Recommender(runs / name) for name in ("old", "new")}
    seen = set()
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.status_code == 200
        said = answer.json()
        name = said["version"].split("/")[0]
        seen.add(name)
        expected = alone[name].recommend(**body)
        assert [entry["item"] for entry in said["entries"]] == [entry.item for entry in expected]
        assert [entry["score"] for entry in said["entries"]] == pytest.approx(
            [entry.score for entry in expected], abs=1e-5
        )
    assert seen == {"old", "new"}


def test_requests_that_wait_together_are_computed_together(served: Path) -> None:
    with client(served) as running, ThreadPoolExecutor(12) as pool:
        bodies = [{"user": 100 + number} for number in range(12)]
        answers = list(pool.map(lambda body: running.post("/v1/recommend", json=body), bodies * 4))
        assert {answer.status_code for answer in answers} == {200}
        text = running.get("/metrics").text
    count = float(text.split("unigrf_batch_requests_count ")[1].split()[0])
    total = float(text.split("unigrf_batch_requests_sum ")[1].split()[0])
    assert total == 48
    assert count < 48


def test_the_schema_holds_for_whatever_is_asked(served: Path) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    with client(served) as running:
        schema = schemathesis.openapi.from_dict(running.get("/openapi.json").json())
        operations = [result.ok() for result in schema.get_all_operations()]
        assert {operation.path for operation in operations} >= {"/v1/recommend", "/v1/score", "/v1/events"}
        cases = st.one_of(
            *(each.as_strategy(generation_mode=mode) for each in operations for mode in _modes(schemathesis)
              if each.path != "/v1/swap")
        )  # fmt: skip

        @settings(max_examples=120, deadline=None, phases=[Phase.generate], derandomize=True,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=cases)
        def check(case: Any) -> None:
            body = {} if not isinstance(case.body, dict | list | str | int | float | bool) else {"json": case.body}
            answer = running.request(case.method, case.path, **body)
            assert answer.status_code < 500 or answer.status_code == 503, (case.path, case.body, answer.text)
            described = {str(code) for code in case.operation.definition.raw["responses"]}
            assert str(answer.status_code) in described, (case.path, answer.status_code)

        check()


def _modes(schemathesis: Any) -> list[Any]:
    return [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


def test_sigterm_lets_requests_be_answered_and_nothing_outlives_the_process(served: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "unigrf_dist", "serve", str(served), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("serving old/step-")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as asking:
                for _ in range(200):
                    try:
                        assert asking.get("/ready").status_code == 200
                        break
                    except httpx.TransportError:
                        threading.Event().wait(0.05)
                with ThreadPoolExecutor(8) as pool:
                    futures = [pool.submit(asking.post, "/v1/recommend", json={"user": 104}) for _ in range(8)]
                    assert futures[0].result().status_code == 200
                    os.kill(process.pid, signal.SIGTERM)
                    for future in futures:
                        with contextlib.suppress(httpx.ConnectError):  # came after the door was shut
                            assert future.result().status_code == 200
            assert process.wait(30) in (0, -signal.SIGTERM)
        finally:
            process.kill()


def test_a_restart_keeps_the_data_set_and_nothing_that_was_told(served: Path) -> None:
    known, new = {"user": 104, "k": 4}, {"user": 9999, "k": 4}
    files = sorted(path for path in served.resolve().rglob("*"))
    with client(served) as running:
        before = [running.post("/v1/recommend", json=body).json() for body in (known, new)]
        for user in (104, 9999):
            body = {"user": user, "events": [event(2, LAST + 9)]}
            assert running.post("/v1/events", json=body).status_code == 200
        told = [running.post("/v1/recommend", json=body).json() for body in (known, new)]
        assert all(one != other for one, other in zip(before, told, strict=True))
    with client(served) as running:
        assert [running.post("/v1/recommend", json=body).json() for body in (known, new)] == before
        for user, number in ((104, len(USERS[4])), (9999, 0)):
            assert running.post("/v1/history", json={"user": user}).json()["num_events"] == number
    assert sorted(path for path in served.resolve().rglob("*")) == files

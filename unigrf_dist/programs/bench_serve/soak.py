"""Many mixed requests to a server whose export is swapped in the middle: is one lost, is one wrong?

Each client has users of its own and asks for them one request after the other, so that it knows what the server
was told of each. An answer is compared with what a recommender of the version that it names gives, which reads the
whole history anew.
"""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unigrf_dist.config import Config
from unigrf_dist.errors import UserError
from unigrf_dist.programs.bench_serve.drawn import BEHAVIOURS, FIRST_ITEM, write_drawn_export
from unigrf_dist.programs.bench_serve.process import Client, served
from unigrf_dist.serve import Recommender
from unigrf_dist.serve.export.read import from_pretrained
from unigrf_dist.serve.recommender import Entry

_CLIENTS, _USERS_OF_CLIENT, _LIST_LENGTH = 8, 10, 10
_TOLERANCE = 1e-4
_KINDS = {"recommend": 45, "score": 15, "events": 25, "bad": 15}
_BEFORE, _AFTER = "before", "after"
_FIRST_TIME = 1_600_000_000
_NO_RATING = {"rating": 99}
History = list[dict[str, Any]]


class Sent(NamedTuple):
    """A request and its answer.

    Attributes:
        kind: ``recommend``, ``score``, ``events`` or ``bad``.
        body: what was asked.
        history: all events that the server had been told of the user, with those of this request.
        swapped: whether the server had said before that it was swapped.
        status: of the answer; None if there was none.
        answer: its content.
    """

    kind: str
    body: dict[str, Any]
    history: History
    swapped: bool
    status: int | None
    answer: Any


@dataclass(frozen=True)
class SoakResult:
    """What became of the requests.

    Attributes:
        requests: number of each kind.
        versions: lists and scores by the version that gave them.
        lost: requests without an answer.
        wrong: requests with another answer than the right one, in words.
    """

    requests: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class _Middle:
    """Counts requests; `reached` when half of them are sent, `swapped` when the server has another version."""

    def __init__(self, num_requests: int) -> None:
        self._left, self._lock = num_requests // 2, threading.Lock()
        self.reached, self.swapped = threading.Event(), threading.Event()

    def count(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self.reached.set()


def soak(place: Path, config: Config, *, num_requests: int, num_items: int) -> SoakResult:
    """Ask, swap in the middle, and compare every answer.

    Args:
        place: folder for two exports with drawn weights.
        config: configuration of both.
        num_requests: requests of all clients together; the swap comes on top.
        num_items: items of both catalogues.

    Raises:
        UserError: the configuration can't be drawn, or the server doesn't start or swap.
    """
    for seed, name in enumerate((_BEFORE, _AFTER)):
        write_drawn_export(place / name, config, num_items=num_items, seed=seed)
    link = place / "current"
    link.symlink_to(place / _BEFORE)
    middle = _Middle(num_requests)
    bounds = np.linspace(0, num_requests, _CLIENTS + 1).astype(int).tolist()
    with served(link, "--threads", "2") as server, ThreadPoolExecutor(_CLIENTS) as pool:
        futures = [
            pool.submit(_SoakClient(server.port, number, num_items, config, middle).run, stop - start)
            for number, (start, stop) in enumerate(pairwise(bounds))
        ]
        middle.reached.wait()
        _swap(server.port, link, place / _AFTER)
        middle.swapped.set()
        sent = [each for future in futures for each in future.result()]
    return judged(sent, {name: from_pretrained(place / name) for name in (_BEFORE, _AFTER)})


def _swap(port: int, link: Path, export: Path) -> None:
    fresh = link.with_name("fresh")
    fresh.symlink_to(export)
    fresh.replace(link)
    client = Client(port)
    status, answer = client.post("/v1/swap", {})
    client.close()
    if status != http.client.OK or not answer["changed"]:
        raise UserError(f"bench serve --soak: the swap was answered with {status}: {answer}")


class _SoakClient:
    """One client, which asks for users that nobody else asks for."""

    def __init__(self, port: int, number: int, num_items: int, config: Config, middle: _Middle) -> None:
        self._client, self._middle, self._num_items = Client(port), middle, num_items
        self._tasks = [task.rule for task in config.objective.ranking]
        self._random = random.Random(number)
        self._histories: dict[str, History] = {f"user-{number}-{n}": [] for n in range(_USERS_OF_CLIENT)}

    def run(self, num_requests: int) -> list[Sent]:
        """Send requests one after the other; after one without an answer the next has a new connection."""
        sent = [self._send() for _ in range(num_requests)]
        self._client.close()
        return sent

    def _send(self) -> Sent:
        user = self._random.choice(list(self._histories))
        history = self._histories[user]
        kind = self._random.choices(list(_KINDS), list(_KINDS.values()))[0]
        kind = kind if history or kind == "bad" else "events"
        path, body = getattr(self, f"_{kind}")(user, history)
        swapped, status, answer = self._middle.swapped.is_set(), None, None
        self._middle.count()
        try:
            status, answer = self._client.post(path, body)
        except (OSError, http.client.HTTPException, ValueError):
            self._client.close()
        if kind == "events" and status == http.client.OK:
            history.extend(body["events"])
        return Sent(kind, body, list(history), swapped, status, answer)

    def _recommend(self, user: str, history: History) -> tuple[str, dict[str, Any]]:
        whom = {"user": user} if self._random.random() < 0.8 else {"history": list(history)}
        blend = {task: self._random.choice([0.0, 0.5]) for task in self._tasks}
        later = self._random.choice([0, 3600])
        return "/v1/recommend", {**whom, "k": _LIST_LENGTH, "blend": blend, "at": history[-1]["time"] + later}

    def _score(self, user: str, history: History) -> tuple[str, dict[str, Any]]:
        blend = dict.fromkeys(self._tasks, 0.5)
        return "/v1/score", {"user": user, "items": [self._item() for _ in range(3)], "blend": blend}

    def _events(self, user: str, history: History) -> tuple[str, dict[str, Any]]:
        last = history[-1]["time"] if history else _FIRST_TIME
        events = [
            {"item": self._item(), "behaviour": self._random.choice(BEHAVIOURS), "time": last + 60 * number}
            for number in range(1, self._random.randint(1, 3) + 1)
        ]
        return "/v1/events", {"user": user, "events": events}

    def _bad(self, user: str, _: History) -> tuple[str, dict[str, Any]]:
        event = {"item": self._item(), "behaviour": BEHAVIOURS[0], "time": _FIRST_TIME}
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("/v1/recommend", {"user": user, "k": 0}),
            ("/v1/recommend", {"user": user, "blend": {"no task": 1.0}}),
            ("/v1/recommend", {"history": [event, {**event, "behaviour": _NO_RATING}]}),
            ("/v1/score", {"user": user, "items": []}),
            ("/v1/events", {"user": user, "events": [event, {**event, "behaviour": _NO_RATING}]}),
        ]
        return self._random.choice(bodies)

    def _item(self) -> int:
        return FIRST_ITEM + self._random.randrange(self._num_items)


def judged(sent: list[Sent], versions: Mapping[str, Recommender]) -> SoakResult:
    """Every answer beside what the version that it names makes of the whole history, read anew."""
    torch.set_num_threads(1)
    result = SoakResult()
    for each in sent:
        result.requests[each.kind] += 1
        if each.status is None:
            result.lost.append(f"{each.kind} {each.body}")
        elif (problem := _problem(each, versions, result.versions)) is not None:
            result.wrong.append(f"{each.kind} {each.body}: {problem}")
    return result


def _problem(sent: Sent, versions: Mapping[str, Recommender], counts: Counter[str]) -> str | None:
    expected_status = http.client.UNPROCESSABLE_ENTITY if sent.kind == "bad" else http.client.OK
    if sent.status != expected_status:
        return f"answered with {sent.status}"
    if sent.kind == "bad":
        return None
    name = sent.answer["version"].split("/")[0]
    if sent.swapped and name != _AFTER:
        return "the version before answered after the swap"
    if sent.kind == "events":
        return None if sent.answer["num_events"] == len(sent.history) else "another number of events is known"
    counts[name] += 1
    given, version = sent.answer["entries"], versions[name]
    events = [(event["item"], event["behaviour"], event["time"]) for event in sent.history]
    if sent.kind == "recommend":
        body = sent.body
        # Entries whose scores are equal but for rounding may change places, also with those behind the last.
        more = version.recommend(history=events, at=body["at"], k=2 * _LIST_LENGTH, blend=body["blend"]).entries
        return None if _same_list(given, more) else f"another list than {name} gives"
    known = version.vocabulary.history(events).sequences
    blend = version.options(k=1, candidates=1, blend=sent.body["blend"]).blend
    scores = version.score(known, known.timestamps[-1:], sent.body["items"], blend)
    right = all(mine is not None and _same(one, mine) for one, mine in zip(given, scores, strict=True))
    return None if right else f"other scores than {name} gives"


def _same_list(given: list[dict[str, Any]], more: list[Entry]) -> bool:
    by_item = {entry.item: entry for entry in more}
    items = [entry["item"] for entry in given]
    ranked = zip(given, more, strict=False)
    return (
        len(given) == min(_LIST_LENGTH, len(more))
        and len(set(items)) == len(items)
        and all(abs(one["score"] - mine.score) <= _TOLERANCE for one, mine in ranked)
        and all(one["item"] in by_item and _same(one, by_item[one["item"]]) for one in given)
    )


def _same(given: dict[str, Any], mine: Entry) -> bool:
    numbers = [(given["score"], mine.score), (given["log_retrieval"], mine.log_retrieval)]
    numbers += [(given["probabilities"][task], value) for task, value in mine.probabilities.items()]
    return given["item"] == mine.item and all(abs(one - other) <= _TOLERANCE for one, other in numbers)

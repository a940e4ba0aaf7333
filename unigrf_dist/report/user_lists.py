"""A few users with what they did last and what the run recommends to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from unigrf_dist.errors import UserError
from unigrf_dist.report.words import plain
from unigrf_dist.serve import Recommender

_NUM_USERS, _EVENTS, _ENTRIES = 5, 10, 10


@dataclass(frozen=True)
class PastEvent:
    """One event in words: the item's title or raw id, its behaviour, its day."""

    item: str
    behaviour: str
    day: str


@dataclass(frozen=True)
class Suggestion:
    """One entry of a list in words: title or raw id, retrieval probability, probability of each task."""

    item: str
    retrieval: str
    tasks: list[str]


@dataclass(frozen=True)
class UserList:
    """One user.

    Attributes:
        user: raw id.
        num_events: events of the data set, all of which count.
        history: the latest ones, newest first.
        entries: the list, best first.
    """

    user: str
    num_events: int
    history: list[PastEvent]
    entries: list[Suggestion]


@dataclass(frozen=True)
class UserLists:
    """Users spread evenly over the data set.

    Attributes:
        tasks: rules of the ranking tasks.
        users: the users; none if there are no lists.
        problem: why there are none, empty otherwise.
    """

    tasks: list[str]
    users: list[UserList]
    problem: str = ""


def read_user_lists(run: Path) -> UserLists:
    """Lists of a run's best checkpoint, with the blend that was chosen for it; none where it can't answer yet."""
    try:
        recommender = Recommender(run)
        everyone = recommender.users.raw_ids()
        places = np.linspace(0, len(everyone) - 1, min(_NUM_USERS, len(everyone))).astype(np.int64)
        users = [_user_list(recommender, everyone[place].as_py(), place) for place in places]
    except UserError as error:
        return UserLists([], [], str(error))
    return UserLists(recommender.tasks, users)


def _user_list(recommender: Recommender, user: int | str, place: int) -> UserList:
    events = recommender.histories_of(np.array([place]))
    vocabulary, behaviours = recommender.vocabulary, recommender.run.behaviours
    latest = slice(None, -_EVENTS - 1, -1)
    rows = zip(
        events.item_ids[latest].tolist(),
        events.behaviours[latest].tolist(),
        events.timestamps[latest].tolist(),
        strict=True,
    )
    history = [
        PastEvent(_item(vocabulary.title(item), vocabulary.raw_items[item]), _words(behaviours[code]), _day(time))
        for item, code, time in rows
    ]
    most = len(recommender.run.items)
    entries = [
        Suggestion(
            _item(entry.title, entry.item),
            _percent(math.exp(entry.log_retrieval)),
            [_percent(entry.probabilities[task]) if entry.probabilities else "" for task in recommender.tasks],
        )
        for entry in recommender.recommend(user, k=min(_ENTRIES, most))
    ]
    return UserList(str(user), len(events.item_ids), history, entries)


def _item(title: str | None, raw: int | str) -> str:
    return title or f"item {raw}"


def _words(behaviour: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {plain(value)}" for name, value in behaviour.items())


def _percent(probability: float) -> str:
    return f"{probability:.1%}"


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d")
    except (OverflowError, OSError, ValueError):
        return str(seconds)

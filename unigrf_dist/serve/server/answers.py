"""From a request's body to its answer, for several requests at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from unigrf_dist.data.sequences import IntArray, Sequences, concatenate
from unigrf_dist.errors import UserError
from unigrf_dist.serve.recommender import Entry
from unigrf_dist.serve.server.live_users import LiveUsers
from unigrf_dist.serve.server.schema import (
    EntryAnswer,
    EventBody,
    RecommendAnswer,
    RecommendBody,
    ScoreAnswer,
    ScoreBody,
)
from unigrf_dist.serve.server.versions import Version, Versions
from unigrf_dist.serve.stages import ListOptions
from unigrf_dist.serve.vocabulary import Event, KnownEvents

_CANDIDATES = 100
_Result = TypeVar("_Result")
Location = tuple[str | int, ...]
Asked = RecommendBody | ScoreBody
Answered = RecommendAnswer | ScoreAnswer


class Refused(Exception):
    """A request is wrong in a field.

    Args:
        location: path of the field in the body.
        problem: what is wrong, what is allowed.
    """

    def __init__(self, location: Location, problem: str) -> None:
        super().__init__(problem)
        self.location, self.problem = location, problem


@dataclass(frozen=True)
class _Somebody:
    """Whose list is asked for.

    Attributes:
        events: all known events.
        at: ``[1]`` int64, seconds.
        name: under which the history is kept; None for one that the request brings.
        num_unknown: events whose items the catalogue does not have.
    """

    events: Sequences
    at: IntArray
    name: Hashable | None
    num_unknown: int


class Answers:
    """Answers requests; one call has one version throughout.

    Args:
        versions: what is served.
        users: their histories.
        on_batch: told how many lists were computed together.
    """

    def __init__(self, versions: Versions, users: LiveUsers, *, on_batch: Callable[[int], None]) -> None:
        self._versions, self._users, self._on_batch = versions, users, on_batch

    def __call__(self, bodies: Sequence[Asked]) -> list[Answered | Exception]:
        """An answer or a refusal for each body, in order; nobody else's request changes it."""
        version = self._versions.current
        answers: dict[int, Answered | Exception] = {}
        groups: dict[Hashable, list[tuple[int, _Somebody, ListOptions]]] = {}
        for number, body in enumerate(bodies):
            try:
                somebody = self._somebody(version, body)
                if isinstance(body, ScoreBody):
                    answers[number] = _scores(version, body, somebody)
                else:
                    options = _options(version, body)
                    groups.setdefault(_alike(body), []).append((number, somebody, options))
            except (Refused, UserError) as error:
                answers[number] = error
        for group in groups.values():
            people = [somebody for _, somebody, _ in group]
            lists = _lists(version, people, group[0][2])
            answers.update(zip((number for number, _, _ in group), lists, strict=True))
            self._on_batch(len(group))
        return [answers[number] for number in range(len(bodies))]

    def _somebody(self, version: Version, body: Asked) -> _Somebody:
        name = None
        if body.history is not None:
            known = history_of(version, body.history, ("body", "history"))
            events, num_unknown = known.sequences, known.num_unknown
        else:
            assert body.user is not None
            name = checked(("body", "user"), version.user_id, body.user)
            live = self._users.history(version, name)
            events, num_unknown = live.events, live.num_unknown
        events = _with_codes(version, events)
        last = int(events.timestamps[-1]) if len(events.timestamps) else 0
        at = last if body.at is None else body.at
        if len(events.timestamps) and at < last:
            raise Refused(("body", "at"), f"{at} lies before the last event of the history, at {last}")
        return _Somebody(events, np.array([at]), name, num_unknown)


def checked(location: Location, call: Callable[..., _Result], *arguments: object, **named: object) -> _Result:
    """What ``call`` gives; its user error becomes one of the field at ``location``."""
    try:
        return call(*arguments, **named)
    except UserError as error:
        raise Refused(location, str(error)) from error


def history_of(version: Version, events: Sequence[EventBody], location: Location) -> KnownEvents:
    """Events of a body as ``Vocabulary.history`` gives them; a wrong one is refused with its place."""
    history = version.recommender.vocabulary.history
    try:
        return history([raw_event(event) for event in events])
    except UserError:
        for number, event in enumerate(events):
            checked((*location, number), history, [raw_event(event)])
        raise


def raw_event(event: EventBody) -> Event:
    """An event of a body as the recommender takes it."""
    return event.item, event.behaviour, event.time


def _alike(body: RecommendBody) -> Hashable:
    """Equal for requests that can share one search."""
    blend = None if body.blend is None else tuple(sorted(body.blend.items()))
    lists = [None if ids is None else tuple(ids) for ids in (body.allow, body.deny)]
    return body.k, body.candidates, body.seen, blend, *lists


def _options(version: Version, body: RecommendBody) -> ListOptions:
    candidates = body.candidates or max(_CANDIDATES, body.k)
    wanted = {"k": body.k, "candidates": candidates, "seen": body.seen}
    options = checked(("body", "blend"), version.recommender.options, **wanted, blend=body.blend)
    if body.allow is not None or body.deny is not None:
        field = "deny" if body.allow is None else "allow"
        if body.allow is not None and body.deny is not None:
            checked(("body", "deny"), version.recommender.vocabulary.rows, body.deny)
        options = checked(
            ("body", field),
            version.recommender.options,
            **wanted,
            blend=body.blend,
            allow=body.allow,
            deny=body.deny,
        )
    return options


def _lists(version: Version, people: Sequence[_Somebody], options: ListOptions) -> list[Answered]:
    recommender = version.recommender
    lists = recommender.lists(
        concatenate([each.events for each in people]),
        np.concatenate([each.at for each in people]),
        options,
        [each.name for each in people],
    )
    return [
        RecommendAnswer(
            version=version.name,
            source="model" if bool(lists.from_model[row]) else "popularity",
            num_unknown_items=somebody.num_unknown,
            entries=[_entry(version, entry) for entry in recommender.entries(lists, row)],
        )
        for row, somebody in enumerate(people)
    ]


def _scores(version: Version, body: ScoreBody, somebody: _Somebody) -> ScoreAnswer:
    recommender = version.recommender
    blend = checked(("body", "blend"), recommender.options, k=1, candidates=1, blend=body.blend).blend
    if not len(somebody.events.item_ids):
        raise Refused(("body", "user" if body.history is None else "history"), "no event of it is known")
    entries = checked(
        ("body", "items"), recommender.score, somebody.events, somebody.at, body.items, blend, somebody.name
    )
    answers = [None if entry is None else _entry(version, entry) for entry in entries]
    return ScoreAnswer(version=version.name, num_unknown_items=somebody.num_unknown, entries=answers)


def _entry(version: Version, entry: Entry) -> EntryAnswer:
    return EntryAnswer(
        item=entry.item,
        title=entry.title,
        score=entry.score,
        log_retrieval=entry.log_retrieval,
        probabilities=entry.probabilities,
    )


def _with_codes(version: Version, events: Sequences) -> Sequences:
    """Somebody whom the data set does not have has code 0 of every side feature."""
    number = len(version.recommender.run.config.model.user_features)
    if not number or events.user_features is not None:
        return events
    return replace(events, user_features=np.zeros((1, number), np.int32))

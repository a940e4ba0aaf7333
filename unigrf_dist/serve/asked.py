"""Who is asked for in bulk: users of the data set, or histories in a file of json lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from unigrf_dist.data.histories import NOBODY
from unigrf_dist.data.sequences import IntArray, Sequences, concatenate
from unigrf_dist.errors import UserError
from unigrf_dist.serve.recommender import Recommender
from unigrf_dist.serve.vocabulary import RawId

_SHOWN = 5
_KEYS = {"id", "history", "at"}


class Batch(NamedTuple):
    """Some requests: their names, histories, and ``[B]`` moments in seconds, None for those of the last events."""

    names: pa.Array
    histories: Sequences
    at: IntArray | None


class Asked(Protocol):
    """Requests that can be answered in batches of any size."""

    name_type: pa.DataType

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Batch]: ...

    def problems(self) -> list[str]:
        """One line for each kind of thing that was not known; complete when all batches are through."""
        ...


class AskedUsers:
    """Users of the data set, in its order, and behind them those that it does not have.

    Args:
        recommender: whose data set.
        raw_users: raw ids; all users if None.
        at: moment of all requests in seconds.

    Raises:
        UserError: an id is of another type than the data set's.
    """

    def __init__(self, recommender: Recommender, raw_users: Sequence[RawId] | None, at: int | None) -> None:
        self._recommender, self._at = recommender, at
        known = recommender.users.raw_ids()
        self.name_type = known.type
        if raw_users is None:
            self._dense, self._names = np.arange(len(known)), known
        else:
            names = recommender.raw_user_ids(raw_users)
            dense = recommender.users.find(names)
            # Neighbours share a row group, which is read once this way.
            order = np.lexsort((dense, dense == NOBODY))
            self._dense, self._names = dense[order], names.take(pa.array(order))

    def __len__(self) -> int:
        return len(self._dense)

    def batches(self, size: int) -> Iterator[Batch]:
        for first in range(0, len(self), size):
            dense = self._dense[first : first + size]
            at = None if self._at is None else np.full(len(dense), self._at)
            yield Batch(self._names.slice(first, size), self._recommender.histories_of(dense), at)

    def problems(self) -> list[str]:
        unknown = self._names.filter(pa.array(self._dense == NOBODY)).to_pylist()
        if not unknown:
            return []
        return [f"{len(unknown):,} users are not in the data set and get popular items: {_listed(unknown)}"]


def users_in_file(file: Path) -> list[str]:
    """Raw user ids, one a line; empty lines count for nothing.

    Raises:
        UserError: the file can't be read, or names nobody.
    """
    users = [line for line in _text(file).splitlines() if line.strip()]
    if not users:
        raise UserError(f"{file}: no user in it; write one raw user id a line")
    return users


class AskedHistories:
    """Histories that the requests bring, in the order of the file.

    A line is an object: ``history``, a list of ``[raw item, {behaviour's name: value}, seconds]``; optional
    ``id``, a text that names the request (else its line number), and ``at``, the moment of the request in seconds.

    Args:
        recommender: whose catalogue and behaviours.
        file: json lines.
        at: moment of the requests that do not bring one.

    Raises:
        UserError: the file can't be read or a line of it is no such object; nothing has been computed yet.
    """

    name_type = pa.string()

    def __init__(self, recommender: Recommender, file: Path, at: int | None) -> None:
        self._names: list[str] = []
        self._histories: list[Sequences] = []
        self._at: list[int | None] = []
        self._num_unknown = self._num_empty = 0
        for number, line in enumerate(_text(file).splitlines(), start=1):
            if line.strip():
                try:
                    self._add(recommender, _request(line), number, at)
                except UserError as error:
                    raise UserError(f"{file}, line {number}: {error}") from error
        if not self._names:
            raise UserError(f"{file}: no history in it; write one json object a line")

    def __len__(self) -> int:
        return len(self._names)

    def batches(self, size: int) -> Iterator[Batch]:
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            histories = concatenate(self._histories[part])
            last = [each.timestamps[-1] if len(each.timestamps) else 0 for each in self._histories[part]]
            at = [then if moment is None else moment for moment, then in zip(self._at[part], last, strict=True)]
            yield Batch(pa.array(self._names[part]), histories, np.array(at, dtype=np.int64))

    def problems(self) -> list[str]:
        lines = []
        if self._num_unknown:
            lines.append(f"{self._num_unknown:,} events were left out: the catalogue does not have their items")
        if self._num_empty:
            lines.append(f"{self._num_empty:,} histories have no known event and get popular items")
        return lines

    def _add(self, recommender: Recommender, request: dict[str, Any], number: int, at: int | None) -> None:
        known = recommender.vocabulary.history(request["history"])
        moment = request.get("at", at)
        times = known.sequences.timestamps
        if moment is not None and len(times) and moment < times[-1]:
            raise UserError(f"at = {moment} lies before the last event of the history, at {times[-1]}")
        self._names.append(str(request.get("id", number)))
        self._histories.append(known.sequences)
        self._at.append(moment)
        self._num_unknown += known.num_unknown
        self._num_empty += not len(times)


def _request(line: str) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError as error:
        raise UserError(f"no json ({error})") from error
    if not isinstance(request, dict) or not isinstance(request.get("history"), list):
        raise UserError('no object with a list "history" of [item, {name: value}, seconds]')
    if unknown := sorted(set(request) - _KEYS):
        raise UserError(f"unknown key {unknown[0]!r}; allowed are {', '.join(sorted(_KEYS))}")
    at = request.get("at", 0)
    if isinstance(at, bool) or not isinstance(at, int):
        raise UserError(f"at = {at!r} is no whole number of seconds")
    return request


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is no UTF-8 text ({error.reason} at byte {error.start})") from error


def _listed(values: list[RawId]) -> str:
    return ", ".join(map(str, values[:_SHOWN])) + (", …" if len(values) > _SHOWN else "")

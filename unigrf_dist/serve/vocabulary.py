"""Raw ids and behaviours of requests, and what stands for them in the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unigrf_dist.data.manifest import IdType
from unigrf_dist.data.sequences import IntArray, Sequences
from unigrf_dist.errors import UserError
from unigrf_dist.serve.loaded import ItemDictionary

RawId = int | str
Event = tuple[RawId, Mapping[str, float], int]
"""Raw item id, named values of the behaviour, time in seconds."""

_SHOWN = 6
_LATEST_SECONDS = 2**62


@dataclass(frozen=True)
class KnownEvents:
    """The events of one history whose items the catalogue has, oldest first.

    Attributes:
        sequences: the history of one user.
        num_unknown: events left out because the catalogue does not have their item.
    """

    sequences: Sequences
    num_unknown: int


def raw_id(value: Any, kind: IdType, what: str) -> RawId:
    """``value`` as an id of the data set.

    Raises:
        UserError: the data set's ids are of another type.
    """
    if kind == "string":
        if isinstance(value, str):
            return value
    elif isinstance(value, int | np.integer) and not isinstance(value, bool):
        if -(2**63) <= value < 2**63:
            return int(value)
    elif isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return raw_id(int(value), kind, what)
    wanted = "text" if kind == "string" else "64-bit integers"
    raise UserError(f"{what} {value!r}: ids of {what}s are {wanted} in this data set")


class Vocabulary:
    """Items and behaviours of a data set; raw item ids and titles are held in memory.

    Args:
        items: the items of the catalogue.
        behaviours: named values of every behaviour code.
    """

    def __init__(self, items: ItemDictionary, behaviours: Sequence[Mapping[str, float]]) -> None:
        self.raw_items: list[RawId] = items.raw_ids.to_pylist()
        self._titles: list[str | None] | None = None if items.titles is None else items.titles.to_pylist()
        self._raw_type, self._behaviours = items.raw_type, behaviours
        self._rows = {raw: row for row, raw in enumerate(self.raw_items)}
        self._codes = {_key(values): code for code, values in enumerate(behaviours)}

    def title(self, row: int) -> str | None:
        """What the item of a dense id is called; None where that is not known."""
        return None if self._titles is None else self._titles[row]

    def rows(self, raw_items: Iterable[RawId]) -> tuple[IntArray, int]:
        """Dense ids of the items that the catalogue has, and the number of the others.

        Raises:
            UserError: an id is of another type than the catalogue's.
        """
        found = [self._rows.get(raw_id(raw, self._raw_type, "item")) for raw in raw_items]
        known = np.array([row for row in found if row is not None], dtype=np.int64)
        return known, len(found) - len(known)

    def history(self, events: Sequence[Event]) -> KnownEvents:
        """Events as the model reads them: sorted by time, equal times in the given order.

        Raises:
            UserError: an event is none, or its behaviour is not one of the data set's.
        """
        rows: list[tuple[int, int, int]] = []
        for number, event in enumerate(events, start=1):
            try:
                item, behaviour, time = event
                moment, code = self._moment(time), self._code(behaviour)
                row = self._rows.get(raw_id(item, self._raw_type, "item"))
            except UserError as error:
                raise UserError(f"event {number} of the history: {error}") from error
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"event {number} of the history: {event!r} is no [item, {{name: value, …}}, seconds]"
                ) from error
            if row is not None:
                rows.append((moment, row, code))
        packed = np.array(rows, dtype=np.int64).reshape(-1, 3)
        times, items, codes = packed[np.argsort(packed[:, 0], kind="stable")].T
        sequences = Sequences(
            np.zeros(1, np.int64),
            np.array([0, len(rows)]),
            items.copy(),
            codes.astype(np.int16),
            times.copy(),
        )
        return KnownEvents(sequences, len(events) - len(rows))

    def _code(self, behaviour: Mapping[str, float]) -> int:
        code = self._codes.get(_key(behaviour))
        if code is None:
            some = ", ".join(str(values) for values in self._behaviours[:_SHOWN])
            more = " …" if len(self._behaviours) > _SHOWN else ""
            raise UserError(f"behaviour {dict(behaviour)} is not in the data set, which has {some}{more}")
        return code

    @staticmethod
    def _moment(time: Any) -> int:
        whole = isinstance(time, int | np.integer) and not isinstance(time, bool)
        if not whole or abs(int(time)) > _LATEST_SECONDS:
            raise UserError(f"time {time!r} is no whole number of seconds")
        return int(time)


def _key(behaviour: Mapping[str, float]) -> frozenset[tuple[str, float]]:
    return frozenset((name, float(value)) for name, value in behaviour.items())

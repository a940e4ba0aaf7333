"""Checks of raw values in SQL: the value in its final type, and a message for what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unigrf_dist.data.manifest import IdType
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import TimeUnit
from unigrf_dist.prepare.sql import sql_text

MICROSECONDS_PER_SECOND = 1_000_000
_MICROSECONDS: dict[TimeUnit, int] = {"s": MICROSECONDS_PER_SECOND, "ms": 1_000, "us": 1}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_INTEGERS |= {f"U{name}" for name in _INTEGERS}
# 9999-12-31: a time beyond it, or as far before 1970, means that the unit is another.
_LAST_SECOND = 253_402_300_799


@dataclass(frozen=True)
class Checked:
    """A checked value, as SQL expressions.

    Attributes:
        value: the value in its final type, NULL if it is bad.
        problems: (condition, message) in the order of checking; a bad value meets at least one condition.
    """

    value: str
    problems: list[tuple[str, str]]


@dataclass(frozen=True)
class RawColumn:
    """A column of a raw file.

    Attributes:
        name: its name in the file, for messages.
        sql: SQL expression of its values.
        kind: DuckDB's type of it.
    """

    name: str
    sql: str
    kind: str

    def as_id(self, kind: IdType) -> Checked:
        """An id: an integer in [0, 2^63), or text.

        Raises:
            UserError: ids are to be integers and the column has another type.
        """
        if kind == "string":
            text = f"CAST({self.sql} AS VARCHAR)"
            return Checked(text, [self._empty()])
        integer = self._integer("ids must be integers, as floats lose those above 2^53")
        return Checked(integer.value, [*integer.problems, self._says(f"{integer.value} < 0", "is negative")])

    def as_time(self, unit: TimeUnit) -> Checked:
        """A time, in microseconds since 1970.

        Raises:
            UserError: the column is neither of an integer or TIMESTAMP type nor text.
        """
        if self.kind.startswith("TIMESTAMP") or self.kind == "DATE":
            return Checked(f"epoch_us({self.sql})", [self._empty()])
        integer = self._integer("timestamps must be integers or of a TIMESTAMP type")
        scale = _MICROSECONDS[unit]
        last = _LAST_SECOND * (MICROSECONDS_PER_SECOND // scale)
        outside = f"{integer.value} NOT BETWEEN -{last} AND {last}"
        problem = self._says(outside, f"is beyond the year 9999 when read as {unit}; is the unit another?")
        return Checked(
            f"CASE WHEN {outside} THEN NULL ELSE {integer.value} * {scale} END", [*integer.problems, problem]
        )

    def as_number(self, limits: tuple[float, float] | None) -> Checked:
        """A finite number within ``limits``, both ends included."""
        value = f"TRY_CAST({self.sql} AS DOUBLE)"
        problems = [self._empty(), self._says(f"{value} IS NULL", "is no number")]
        problems.append(self._says(f"NOT isfinite({value})", "is not finite"))
        if limits is not None:
            low, high = limits
            problems.append(self._says(f"{value} NOT BETWEEN {low} AND {high}", f"is outside [{low:g}, {high:g}]"))
        return Checked(value, problems)

    def _integer(self, rule: str) -> Checked:
        if self.kind in _INTEGERS:
            value = f"TRY_CAST({self.sql} AS BIGINT)"
            return Checked(value, [self._empty(), self._says(f"{value} IS NULL", "does not fit into 64 bits")])
        if self.kind != "VARCHAR":
            raise UserError(f"column {self.name!r} is {self.kind}; {rule}")
        # A cast alone would round '1.5' and read '1e3'.
        text = f"trim({self.sql})"
        value = f"TRY_CAST({text} AS BIGINT)"
        no_integer = f"NOT regexp_full_match({text}, '-?[0-9]+')"
        return Checked(
            f"CASE WHEN {no_integer} THEN NULL ELSE {value} END",
            [
                self._empty(),
                self._says(no_integer, "is no integer"),
                self._says(f"{value} IS NULL", "does not fit into 64 bits"),
            ],
        )

    def _empty(self) -> tuple[str, str]:
        return f"coalesce(CAST({self.sql} AS VARCHAR), '') = ''", sql_text(f"column {self.name} is empty")

    def _says(self, condition: str, message: str) -> tuple[str, str]:
        before, after = sql_text(f"column {self.name}: '"), sql_text(f"' {message}")
        return condition, f"{before} || left(CAST({self.sql} AS VARCHAR), 40) || {after}"


def problem_of(values: Sequence[Checked]) -> str:
    """SQL of the message for the first problem among ``values``, NULL if all are good."""
    cases = [f"WHEN {condition} THEN {message}" for value in values for condition, message in value.problems]
    return f"CASE {' '.join(cases)} END"

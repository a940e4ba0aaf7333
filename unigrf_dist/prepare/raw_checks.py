"""Checks of raw values in SQL: the value in its final type, and a message for what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unigrf_dist.data.manifest import IdType
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import TimeUnit
from unigrf_dist.prepare.sql import sql_text

MICROSECONDS_PER_SECOND = 1_000_000
_PER_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_INTEGERS |= {f"U{name}" for name in _INTEGERS}
_FLOATS = {"FLOAT": 2**24, "DOUBLE": 2**53}
# 9999-12-31: a time beyond it, or as far before 1970, means that the unit is another.
_LAST_SECOND = 253_402_300_799
# How tables write a missing number.
_MISSING = ("", "nan", "null", "none", "na", "n/a", r"\n")


@dataclass(frozen=True)
class Checked:
    """A checked value, as SQL expressions.

    Attributes:
        value: the value in its final type.
        problems: (condition, message) in the order of checking; a bad value meets at least one condition.
        outside: condition on ``{v}``, the value, that a bad value meets if it is not NULL.
    """

    value: str
    problems: list[tuple[str, str]]
    outside: str = "false"

    def is_suspect(self, name: str) -> str:
        """A cheap condition that every bad value meets, where ``name`` is the column of the value."""
        return f"{name} IS NULL OR {self.outside.format(v=name)}"


@dataclass(frozen=True)
class RawColumn:
    """A column of a raw file.

    Attributes:
        file: the file, for messages.
        name: its name in the file, for messages.
        sql: SQL expression of its values.
        kind: DuckDB's type of it.
    """

    file: Path
    name: str
    sql: str
    kind: str

    @property
    def text(self) -> str:
        """The values as text; NULL for bytes that are no UTF-8."""
        if self.kind == "BLOB":
            return f"TRY(decode({self.sql}))"
        return f"CAST({self.sql} AS VARCHAR)"

    def as_id(self, kind: IdType) -> Checked:
        """An id: an integer in [0, 2^63), or text. A whole float is the integer that it equals.

        Raises:
            UserError: ids are to be integers and the column has another type.
        """
        if kind == "string":
            whole = f"{self.sql} = trunc({self.sql}) AND abs({self.sql}) <= {_FLOATS.get(self.kind, 0)}"
            text = self.text
            if self.kind in _FLOATS:
                text = f"CASE WHEN {whole} THEN CAST(CAST({self.sql} AS HUGEINT) AS VARCHAR) ELSE {text} END"
            unreadable = self._says(f"{text} IS NULL", "is no UTF-8 text")
            return Checked(text, [self._empty(), unreadable], "{v} = ''")
        integer = self._integer()
        negative = self._says(f"{integer.value} < 0", "is negative")
        return Checked(integer.value, [*integer.problems, negative], "{v} < 0")

    def as_time(self, unit: TimeUnit) -> Checked:
        """A time, in microseconds since 1970.

        Numbers and text of numbers are in ``unit``; text may also be a date, in UTC if it names no zone.

        Raises:
            UserError: the column is neither a number, nor a date or TIMESTAMP, nor text.
        """
        if self.kind.startswith("TIMESTAMP") or self.kind == "DATE":
            zoned = self.kind == "TIMESTAMPTZ_NS" or self.kind.endswith("TIME ZONE")
            value = f"epoch_us(CAST({self.sql} AS {'TIMESTAMPTZ' if zoned else 'TIMESTAMP'}))"
            return Checked(value, [self._empty(), self._says(f"{value} IS NULL", "is no time")])
        scale = _PER_SECOND[unit]
        last = min(_LAST_SECOND * scale, 2**63 - 1)
        far = f"is beyond the year 9999 when read as {unit}; is the unit another?"
        if self.kind in _INTEGERS:
            value = _microseconds(f"TRY_CAST({self.sql} AS BIGINT)", scale, last)
        elif self.kind in _FLOATS or self.kind.startswith("DECIMAL"):
            value = _microseconds_of_fraction(f"CAST({self.sql} AS DOUBLE)", scale, last)
            if self.kind.startswith("DECIMAL"):
                value = _microseconds_of_fraction(f"TRY_CAST({self.sql} AS DECIMAL(38, 9))", scale, last)
        elif self.kind in ("VARCHAR", "BLOB"):
            return self._time_of_text(unit, last, far)
        else:
            raise UserError(
                f"{self.file}: column {self.name!r} is {self.kind}; timestamps must be numbers, dates or text"
            )
        return Checked(value, [self._empty(), self._says(f"{value} IS NULL", far)])

    def as_number(self, limits: tuple[float, float] | None, *, may_be_missing: bool = False) -> Checked:
        """A finite number within ``limits``, both ends included; true is 1 and false 0.

        Args:
            limits: smallest and largest value; None for any.
            may_be_missing: whether a missing value is NULL instead of bad.
        """
        value = f"TRY_CAST({self.sql} AS DOUBLE)"
        if self.kind == "FLOAT":
            # 0.7 as float32 is below 0.7 as float64: meant is the shortest decimal that rounds to the float32.
            value = f"CAST({self.text} AS DOUBLE)"
        elif self.kind in ("VARCHAR", "BLOB"):
            word = f"CASE lower(trim({self.text})) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END"
            value = f"coalesce(TRY_CAST({self.text} AS DOUBLE), {word})"
        given = "true"
        problems = [self._empty()]
        if may_be_missing:
            listed = ", ".join(map(sql_text, _MISSING))
            given = f"coalesce(lower(trim({self.text})), '') NOT IN ({listed})"
            value, problems = f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END", []
        problems.append(self._says(f"{given} AND {value} IS NULL", "is no number"))
        problems.append(self._says(f"NOT isfinite({value})", "is not finite"))
        outside = "NOT isfinite({v})"
        if limits is not None:
            low, high = limits
            problems.append(self._says(f"{value} NOT BETWEEN {low} AND {high}", f"is outside [{low:g}, {high:g}]"))
            outside += f" OR {{v}} NOT BETWEEN {low} AND {high}"
        return Checked(value, problems, outside)

    def in_buckets(self, edges: Sequence[float]) -> Checked:
        """The largest of the ascending ``edges`` that is not above the number; a missing number stays missing."""
        number = self.as_number(None, may_be_missing=True)
        cases = " ".join(f"WHEN {number.value} >= {edge!r} THEN {edge!r}" for edge in reversed(edges))
        below = self._says(
            f"{number.value} < {edges[0]!r}", f"is below the lowest bucket, {edges[0]:g} (--buckets)"
        )
        return Checked(f"CASE {cases} END::DOUBLE", [*number.problems, below])

    def as_event_type(self) -> Checked:
        """A text that is not empty, without the blanks around it."""
        return Checked(f"trim({self.text})", [self._empty()], "{v} = ''")

    def _time_of_text(self, unit: TimeUnit, last: int, far: str) -> Checked:
        scale = _PER_SECOND[unit]
        text = f"trim({self.text})"
        whole, fraction = (
            f"regexp_full_match({text}, '-?[0-9]+')",
            rf"regexp_full_match({text}, '-?[0-9]+\.[0-9]*')",
        )
        scientific = rf"regexp_full_match({text}, '-?[0-9]+(\.[0-9]+)?[eE][+]?[0-9]+')"
        date = f"regexp_matches({text}, '^[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}')"
        # '2024-01-31 10:00:00 +02:00' is usual, and the cast takes an offset only without a blank before it.
        dated = rf"regexp_replace({text}, '\s+([+-][0-9])', '\1')"
        value = (
            f"CASE WHEN {whole} THEN {_microseconds(f'TRY_CAST({text} AS BIGINT)', scale, last)} "
            f"WHEN {date} THEN epoch_us(TRY_CAST({dated} AS TIMESTAMPTZ)) "
            f"WHEN {fraction} THEN "
            f"{_microseconds_of_fraction(f'TRY_CAST({text} AS DECIMAL(38, 9))', scale, last)} "
            f"WHEN {scientific} THEN {_microseconds_of_fraction(f'TRY_CAST({text} AS DOUBLE)', scale, last)} END"
        )
        number = f"({whole} OR {fraction} OR {scientific})"
        no_time = f"is no number (in {unit}) and no date such as 2024-01-31T12:00:00Z"
        return Checked(
            value,
            [
                self._empty(),
                self._says(f"{number} AND {value} IS NULL", far),
                self._says(f"{value} IS NULL", no_time),
            ],
        )

    def _integer(self) -> Checked:
        too_large = "does not fit into 64 bits"
        if self.kind in _INTEGERS:
            value = f"TRY_CAST({self.sql} AS BIGINT)"
            return Checked(value, [self._empty(), self._says(f"{value} IS NULL", too_large)])
        if self.kind in _FLOATS or self.kind.startswith("DECIMAL"):
            limit = _FLOATS.get(self.kind)
            whole = f"{self.sql} = trunc({self.sql})"
            exact = "true" if limit is None else f"abs({self.sql}) <= {limit}"
            value = f"CASE WHEN {whole} AND {exact} THEN TRY_CAST({self.sql} AS BIGINT) END"
            lost = too_large if limit is None else "is a float too large to hold every integer; write integers"
            # NaN and infinity equal themselves.
            odd = f"NOT ({whole}) OR CAST({self.sql} AS VARCHAR) IN ('nan', 'inf', '-inf')"
            return Checked(
                value,
                [self._empty(), self._says(odd, "is no integer"), self._says(f"{value} IS NULL", lost)],
            )
        if self.kind not in ("VARCHAR", "BLOB"):
            raise UserError(f"{self.file}: column {self.name!r} is {self.kind}; ids must be integers or text")
        # A cast alone would round '1.5' and read '1e3'. '12.0' is how tables with missing values write 12.
        text = f"trim({self.text})"
        whole, padded = f"regexp_full_match({text}, '-?[0-9]+')", rf"regexp_full_match({text}, '-?[0-9]+\.0*')"
        value = (
            f"CASE WHEN {whole} THEN TRY_CAST({text} AS BIGINT) "
            f"WHEN {padded} THEN TRY_CAST(split_part({text}, '.', 1) AS BIGINT) END"
        )
        return Checked(
            value,
            [
                self._empty(),
                self._says(f"NOT ({whole} OR {padded})", "is no integer"),
                self._says(f"{value} IS NULL", too_large),
            ],
        )

    def _empty(self) -> tuple[str, str]:
        return f"coalesce(CAST({self.sql} AS VARCHAR), '') = ''", sql_text(f"column {self.name} is empty")

    def _says(self, condition: str, message: str) -> tuple[str, str]:
        before, after = sql_text(f"column {self.name}: '"), sql_text(f"' {message}")
        return condition, f"{before} || left(CAST({self.sql} AS VARCHAR), 40) || {after}"


def problem_of(values: Sequence[tuple[str, Checked]]) -> str:
    """SQL of the message for the first problem, NULL if all is good.

    Args:
        values: column of every value, and how it is checked.
    """
    cases = [f"WHEN {condition} THEN {message}" for _, value in values for condition, message in value.problems]
    suspect = " OR ".join(value.is_suspect(name) for name, value in values)
    # What is wrong is asked of the few suspect rows alone.
    return f"CASE WHEN {suspect} THEN CASE {' '.join(cases)} END END"


def _microseconds(integer: str, scale: int, last: int) -> str:
    """Microseconds of an integer time with ``scale`` units a second; NULL beyond ``last`` units."""
    converted = f"{integer} * {MICROSECONDS_PER_SECOND // scale}"
    if scale > MICROSECONDS_PER_SECOND:
        divisor = scale // MICROSECONDS_PER_SECOND
        converted = f"({integer} - (({integer} % {divisor}) + {divisor}) % {divisor}) // {divisor}"
    return f"CASE WHEN {integer} BETWEEN -{last} AND {last} THEN CAST({converted} AS BIGINT) END"


def _microseconds_of_fraction(number: str, scale: int, last: int) -> str:
    """Microseconds of a time that may have a fraction, the nearest one; NULL beyond ``last`` units."""
    factor = f"* {MICROSECONDS_PER_SECOND // scale}" if scale <= MICROSECONDS_PER_SECOND else "/ 1000"
    return f"CASE WHEN {number} BETWEEN -{last} AND {last} THEN CAST(round({number} {factor}, 0) AS BIGINT) END"

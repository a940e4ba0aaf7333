"""Ranking tasks as rules on a behaviour: ``rating >= 4``, ``click == 1``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE = re.compile(r"\s*([^\W\d]\w*)\s*(>=|<=|==|!=|>|<)\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class TaskRule:
    """``name comparison threshold`` on the named values of a behaviour."""

    name: str
    comparison: str
    threshold: float

    def __str__(self) -> str:
        return f"{self.name} {self.comparison} {self.threshold:g}"

    def label(self, behaviour: Mapping[str, float]) -> float:
        """1.0 or 0.0; NaN when the behaviour has no value of that name."""
        value = behaviour.get(self.name, math.nan)
        return math.nan if math.isnan(value) else float(_COMPARE[self.comparison](value, self.threshold))


def parse_rule(text: str) -> TaskRule:
    """Read a rule.

    Raises:
        ValueError: the text is no rule; the message shows the allowed form.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no task rule; write NAME COMPARISON NUMBER, as in 'rating >= 4' or 'click == 1'"
        )
    name, comparison, threshold = match.groups()
    return TaskRule(name, comparison, float(threshold))


def label_table(rules: Sequence[str], behaviours: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """``[num_behaviours, num_tasks]`` labels of every behaviour code under every rule.

    Raises:
        ValueError: a rule names a value that no behaviour of the data set has.
    """
    known = sorted({name for behaviour in behaviours for name in behaviour})
    parsed = [parse_rule(rule) for rule in rules]
    for rule in parsed:
        if rule.name not in known:
            raise ValueError(
                f"task rule '{rule}' needs '{rule.name}', but the data's behaviours have: {', '.join(known)}"
            )
    return [[rule.label(behaviour) for rule in parsed] for behaviour in behaviours]


def target_behaviours(rule: str | None, behaviours: Sequence[Mapping[str, float]]) -> list[bool]:
    """``[num_behaviours]`` whether each behaviour code meets ``rule``; all do if there is none.

    Raises:
        ValueError: see ``label_table``.
    """
    if rule is None:
        return [True] * len(behaviours)
    return [label == 1.0 for [label] in label_table([rule], behaviours)]

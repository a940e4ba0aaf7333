"""A search of few settings: from a start along one axis at a time, for as long as that brings something.

A grid of all settings must be coarse or is costly; on a long axis the best value stands rarely at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from unigrf_dist.evaluate.opponents.item_to_item import ItemToItem

Settings = dict[str, float]


@dataclass(frozen=True)
class Axis:
    """What one setting may be.

    Attributes:
        values: ascending.
        start: one of them.
    """

    values: tuple[float, ...]
    start: float


@dataclass(frozen=True)
class Family:
    """An opponent under all its settings.

    Attributes:
        axes: by name, the one that costs least to change first.
        build: makes it for one setting of each axis.
    """

    axes: Mapping[str, Axis]
    build: Callable[[Settings], ItemToItem]


def climb(family: Family, value_of: Callable[[ItemToItem], float]) -> tuple[ItemToItem, str]:
    """The opponent whose value no neighbour on any axis exceeds, and its settings in words.

    Args:
        family: what is searched.
        value_of: how good an opponent is; more is better. Asked once for every setting that is tried.
    """
    here: Settings = {name: axis.start for name, axis in family.axes.items()}
    best = family.build(here)
    values = {_key(here): value_of(best)}
    improved = True
    while improved:
        improved = False
        for name in family.axes:
            for step in (1, -1):
                while (there := _neighbour(family, here, name, step)) is not None and _key(there) not in values:
                    other = family.build(there)
                    values[_key(there)] = value_of(other)
                    if values[_key(there)] <= values[_key(here)]:
                        break
                    here, best, improved = there, other, True
    return best, ", ".join(_words(family, here))


def _neighbour(family: Family, here: Settings, name: str, step: int) -> Settings | None:
    values = family.axes[name].values
    index = values.index(here[name]) + step
    return {**here, name: values[index]} if 0 <= index < len(values) else None


def _key(settings: Settings) -> tuple[float, ...]:
    return tuple(settings.values())


def _words(family: Family, settings: Settings) -> Iterator[str]:
    for name, value in settings.items():
        values = family.axes[name].values
        # A reader should know that more might be found beyond.
        edge = " (the end of what was tried)" if value in (values[0], values[-1]) else ""
        yield f"{name} {value:g}{edge}"

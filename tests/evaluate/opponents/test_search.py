"""The search of settings on a landscape that is known."""

from __future__ import annotations

from unigrf_dist.evaluate.opponents.search import Axis, Family, climb


def test_a_search_finds_the_top_of_a_hill_and_asks_nothing_twice() -> None:
    asked: list[tuple[float, float]] = []

    def value_of(at: tuple[float, float]) -> float:
        asked.append(at)
        x, y = at
        return -2 * (x - 7) ** 2 - (y - 2) ** 2 - (x - 7) * (y - 2)  # the best y depends on x

    axes = {"x": Axis(tuple(range(10)), 1), "y": Axis(tuple(range(10)), 9)}
    best, words = climb(Family(axes, lambda settings: (settings["x"], settings["y"])), value_of)
    assert (best, words) == ((7, 2), "x 7, y 2")
    assert len(asked) == len(set(asked)) < 100


def test_a_value_at_the_end_of_its_axis_is_said_to_be_there() -> None:
    family = Family({"x": Axis((1, 2, 4), 2)}, lambda settings: settings["x"])
    assert climb(family, lambda x: x) == (4, "x 4 (the end of what was tried)")
    assert climb(family, lambda x: -x) == (1, "x 1 (the end of what was tried)")
    assert climb(family, lambda x: 0.0) == (2, "x 2")

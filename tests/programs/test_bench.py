"""How two measured configurations are compared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unigrf_dist.programs.step_times import compare


def measured(seconds: list[float], **phases: list[float]) -> Any:
    steps = [dict(zip(phases, spent, strict=True)) for spent in zip(*phases.values(), strict=True)]
    return SimpleNamespace(seconds=seconds, phases=steps or [{} for _ in seconds])


def test_a_machine_that_slows_down_does_not_count_against_either() -> None:
    pace = [1.0, 1.0, 4.0, 4.0, 9.0, 2.0, 1.5]
    found = compare(measured(pace), measured([1.1 * step for step in pace]))["ratio"]
    assert all(value == pytest.approx(1.1) for value in found.values())


def test_an_interrupted_step_does_not_move_the_median() -> None:
    found = compare(measured([1.0] * 9), measured([1.2] * 8 + [50.0]))["ratio"]
    assert found["median"] == pytest.approx(1.2)


def test_the_interval_covers_the_median_of_noise_nineteen_times_in_twenty() -> None:
    import random

    random.seed(1)
    hits = 0
    for _ in range(400):
        found = compare(measured([1.0] * 40), measured([random.lognormvariate(0.0, 0.3) for _ in range(40)]))
        hits += found["ratio"]["low"] <= 1.0 <= found["ratio"]["high"]
    assert 0.92 <= hits / 400 <= 0.99


def test_a_phase_that_only_one_has_counts_whole() -> None:
    first, second = (
        measured([1.0, 1.0], loss=[0.2, 0.3]),
        measured([1.0, 1.0], loss=[0.2, 0.5], enhancer=[0.1, 0.3]),
    )
    more = compare(first, second)["milliseconds_more_by_phase"]
    assert more == {"loss": pytest.approx(100), "enhancer": pytest.approx(200)}

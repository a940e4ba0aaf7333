"""How often: what can be written, and when it is due."""

from __future__ import annotations

import pytest

from unigrf_dist.config.cadence import Cadence, parse_cadence


@pytest.mark.parametrize(
    ("text", "cadence"),
    [
        ("500 steps", Cadence(steps=500)),
        ("1 step", Cadence(steps=1)),
        ("10 minutes", Cadence(minutes=10)),
        ("0.5 minutes", Cadence(minutes=0.5)),
        ("2 epochs", Cadence(epochs=2)),
        ("500 steps | 10 minutes", Cadence(steps=500, minutes=10)),
        ("3 Epochs or 7 steps", Cadence(steps=7, epochs=3)),
    ],
)
def test_steps_minutes_and_epochs_are_read_alone_and_together(text: str, cadence: Cadence) -> None:
    assert parse_cadence(text) == cadence
    assert parse_cadence(str(cadence)) == cadence


@pytest.mark.parametrize(
    "text", ["", "5", "0 steps", "-1 epochs", "1.5 steps", "2 hours", "1 step or 2 steps", "or"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="500 steps or 10 minutes"):
        parse_cadence(text)


def test_whatever_comes_first_is_due() -> None:
    cadence = parse_cadence("4 steps or 3 epochs")
    assert [step for step in range(13) if cadence.at(step=step)] == [4, 8, 12]
    assert [epoch for epoch in range(8) if cadence.at(step=1, epoch=epoch)] == [3, 6]
    assert not parse_cadence("10 minutes").at(step=10, epoch=10)

"""Minutes between two saves or validations."""

from __future__ import annotations

from unigrf_dist.train.clock import Clock


def test_it_is_due_after_its_minutes_and_again_after_each_restart() -> None:
    now = [100.0]
    clock = Clock(0.5, now=lambda: now[0])
    due = []
    for _ in range(7):
        due.append(clock.due)
        if clock.due:
            clock.restart()
        now[0] += 10.0
    assert due == [False, False, False, True, False, False, True]


def test_without_minutes_it_is_never_due() -> None:
    now = [0.0]
    clock = Clock(0.0, now=lambda: now[0])
    now[0] = 1e9
    assert not clock.due

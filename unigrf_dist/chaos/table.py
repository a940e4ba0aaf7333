"""Fault, outcome, time: one row per fault, over all of its rounds."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from unigrf_dist.chaos.workshop import Outcome


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """For the terminal: how often each fault came to what it should, and the longest time it took."""
    table = Table("fault", "as it should be", "longest", "last outcome", title="faults on purpose")
    for name in dict.fromkeys(outcome.fault for outcome in outcomes):
        rows = [outcome for outcome in outcomes if outcome.fault == name]
        passed = sum(outcome.passed for outcome in rows)
        worst = next((outcome for outcome in rows if not outcome.passed), rows[-1])
        table.add_row(name, f"{passed} of {len(rows)}", f"{max(o.seconds for o in rows):.1f} s", worst.told)
    return table

"""Runs all checks, prints the findings, and decides whether training can run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unigrf_dist.doctor.check import Check, Status
from unigrf_dist.doctor.compilers import check_compilers
from unigrf_dist.doctor.machine import check_machine
from unigrf_dist.doctor.packages import check_packages
from unigrf_dist.doctor.trials import check_device, check_libraries
from unigrf_dist.ranks.environment import put_own_programs_first

_COLOURS = {Status.OK: "green", Status.NOTE: "yellow", Status.FAIL: "bold red"}


def examine() -> list[Check]:
    """All findings about this machine; takes seconds, or minutes if DeepSpeed has to compile first."""
    put_own_programs_first()
    packages = check_packages()
    device, on_cuda = check_device()
    compilers = check_compilers(on_cuda=on_cuda)
    return [*packages, device, *check_machine(), *compilers, *check_libraries(on_cuda=on_cuda)]


def run() -> int:
    """Print the findings; 0 if training can run on this machine, else 1."""
    console = Console(highlight=False)
    with console.status("checking; the first time, DeepSpeed compiles an operator for a minute or more"):
        checks = examine()
    console.print(_table(checks))
    for check in checks:
        if check.fix:
            console.print(
                f"{check.name}: fix: {check.fix}", style=_COLOURS[check.status], soft_wrap=True, markup=False
            )
    missing = [check.name for check in checks if check.status is Status.FAIL]
    if missing:
        console.print(f"training can't run on this machine: {', '.join(missing)}", style="bold red", markup=False)
        return 1
    console.print("training can run on this machine", style="bold green")
    return 0


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "", "", "found"):
        table.add_column(heading, overflow="fold")
    group = ""
    for check in checks:
        colour = _COLOURS[check.status]
        shown = check.group if check.group != group else ""
        # As Text: brackets in a message are not markup.
        table.add_row(shown, Text(check.name), Text(check.status.value, style=colour), Text(check.found))
        group = check.group
    return table

"""``unigrf chaos``: faults on purpose, on this machine, and the table of what they came to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unigrf_dist.errors import UserError

if TYPE_CHECKING:
    from unigrf_dist.chaos.faults import Outcome


def register(app: typer.Typer) -> None:
    """Add the command ``chaos`` to ``app``."""
    app.command()(chaos)


def chaos(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and chaos.json; made if it does not exist.")],
    rounds: Annotated[int, typer.Option(min=1, help="Times that each fault is done.")] = 1,
    faults: Annotated[str, typer.Option(help="Names with commas between; all if left out.")] = "",
    flips: Annotated[int, typer.Option(min=0, help="Bits that flip in a checkpoint, and in a data set.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the data and of what is drawn.")] = 0,
) -> None:
    """Kill, stop, interrupt and damage small trainings here; tell what became of them."""
    from rich.console import Console

    from unigrf_dist.chaos.faults import FAULTS
    from unigrf_dist.chaos.table import outcome_table

    names = [name.strip() for name in faults.split(",") if name.strip()] or list(FAULTS)
    if unknown := [name for name in names if name not in FAULTS]:
        raise UserError(f"--faults {unknown[0]}: no such fault; there are: {', '.join(FAULTS)}")
    console = Console()
    outcomes: list[Outcome] = []
    for outcome in _outcomes(out, names, rounds=rounds, flips=flips, seed=seed):
        outcomes.append(outcome)
        mark = "as it should be" if outcome.passed else "WRONG"
        console.print(f"{outcome.fault}: {mark}, {outcome.seconds:.1f} s, {outcome.told}", markup=False)
    (out / "chaos.json").write_text(json.dumps([vars(each) for each in outcomes], indent=1), encoding="utf-8")
    console.print(outcome_table(outcomes))
    raise typer.Exit(0 if all(each.passed for each in outcomes) else 1)


def _outcomes(out: Path, names: list[str], *, rounds: int, flips: int, seed: int) -> Iterator[Outcome]:
    import random
    import time

    from unigrf_dist.chaos.faults import FAULTS, Outcome, Workshop
    from unigrf_dist.chaos.flips import flip_bits, read_checkpoint, read_data
    from unigrf_dist.chaos.training import make_workshop
    from unigrf_dist.train.checkpoints.folders import LATEST, CheckpointFolders

    work = Workshop(make_workshop(out, seed=seed), out, random.Random(seed))
    for _ in range(rounds):
        for name in names:
            yield FAULTS[name](work)
    if flips:
        work.reference(2)
        checkpoint = CheckpointFolders(out / "reference-2").resolve(LATEST)
        for what, folder, read in (
            ("checkpoint", checkpoint, read_checkpoint),
            ("data set", out / "data", read_data),
        ):
            began = time.monotonic()
            detected, missed = flip_bits(folder, out / "flipped", read, flips=flips, seed=seed)
            told = f"{detected} of {flips} detected or without consequence" + (
                f"; not: {missed[0]}" if missed else ""
            )
            yield Outcome(f"bit flips in a {what}", not missed, time.monotonic() - began, told)

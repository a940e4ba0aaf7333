"""``unigrf chaos``: faults on purpose, on this machine, and the table of what they came to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unigrf_dist.errors import UserError

if TYPE_CHECKING:
    from unigrf_dist.chaos.workshop import Outcome, Workshop


def register(app: typer.Typer) -> None:
    """Add the command ``chaos`` to ``app``."""
    app.command()(chaos)


def chaos(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and chaos.json; made if it does not exist.")],
    rounds: Annotated[int, typer.Option(min=1, help="Times that each fault is done.")] = 1,
    faults: Annotated[str, typer.Option(help="Names with commas between; all if left out, `none` for none.")] = "",
    flips: Annotated[int, typer.Option(min=0, help="Bits that flip in a checkpoint, and in a data set.")] = 100,
    soak: Annotated[int, typer.Option(min=0, help="Steps of a run that is watched for what grows.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the data and of what is drawn.")] = 0,
) -> None:
    """Kill, stop, interrupt and damage small trainings here; tell what became of them."""
    from rich.console import Console

    from unigrf_dist.chaos.catalogue import FAULTS
    from unigrf_dist.chaos.table import outcome_table

    names = [name.strip() for name in faults.split(",") if name.strip()] or list(FAULTS)
    names = [] if names == ["none"] else names
    if unknown := [name for name in names if name not in FAULTS]:
        raise UserError(f"--faults {unknown[0]}: no such fault; there are: {', '.join(FAULTS)}")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: holds files already; name a new folder (--out)")
    console = Console()
    outcomes: list[Outcome] = []
    for outcome in _outcomes(out, names, rounds=rounds, flips=flips, soak=soak, seed=seed):
        outcomes.append(outcome)
        mark = "as it should be" if outcome.as_promised else "WRONG"
        if outcome.promised_seconds is not None and outcome.late:
            mark += f", LATE by {outcome.seconds - outcome.promised_seconds:.1f} s"
        console.print(f"{outcome.fault}: {mark}, {outcome.seconds:.1f} s, {outcome.told}", markup=False)
    (out / "chaos.json").write_text(
        json.dumps([{**vars(each), "passed": each.passed} for each in outcomes], indent=1), encoding="utf-8"
    )
    console.print(outcome_table(outcomes))
    raise typer.Exit(0 if all(each.passed for each in outcomes) else 1)


def _outcomes(out: Path, names: list[str], *, rounds: int, flips: int, soak: int, seed: int) -> Iterator[Outcome]:
    import random

    from unigrf_dist.chaos.catalogue import FAULTS
    from unigrf_dist.chaos.soak import soak_run
    from unigrf_dist.chaos.training import make_workshop
    from unigrf_dist.chaos.workshop import Workshop

    work = Workshop(make_workshop(out, seed=seed), out, random.Random(seed))
    # Fault by fault: the kills of one run follow on each other.
    for name in names:
        for _ in range(rounds):
            yield FAULTS[name](work)
    work.finish()
    yield from work.finished
    if flips:
        yield from _flips(work, flips=flips, seed=seed)
    if soak:
        outcome, samples = soak_run(work, steps=soak)
        lines = "".join(json.dumps(sample._asdict()) + "\n" for sample in samples)
        (out / "soak.jsonl").write_text(lines, encoding="utf-8")
        yield outcome


def _flips(work: Workshop, *, flips: int, seed: int) -> Iterator[Outcome]:
    import time

    from unigrf_dist.chaos.flips import flip_bits, read_checkpoint, read_data
    from unigrf_dist.chaos.workshop import REFERENCE, Outcome
    from unigrf_dist.train.checkpoints.folders import LATEST, CheckpointFolders

    work.reference()
    checkpoint = CheckpointFolders(work.folder / REFERENCE).resolve(LATEST)
    for what, folder, read in (
        ("checkpoint", checkpoint, read_checkpoint),
        ("data set", work.folder / "data", read_data),
    ):
        began = time.monotonic()
        detected, missed = flip_bits(folder, work.folder / "flipped", read, flips=flips, seed=seed)
        told = f"{detected} of {flips} detected or without consequence" + (f"; not: {missed[0]}" if missed else "")
        yield Outcome(f"bit flips in a {what}", not missed, time.monotonic() - began, told)

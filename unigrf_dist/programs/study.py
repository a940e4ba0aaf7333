"""The commands that run studies: ablate, scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unigrf_dist.errors import UserError

if TYPE_CHECKING:
    from unigrf_dist.study.plan import Trial
    from unigrf_dist.study.run_metrics import RunMetrics
    from unigrf_dist.study.runner import Outcome
    from unigrf_dist.study.schema import Study

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML file of the study.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder of the study; the same again goes on with it.")]
Ranks = Annotated[int, typer.Option(min=1, help="Processes of each run.")]
Parallel = Annotated[int, typer.Option(min=1, help="Runs side by side.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the base of all runs.")
]
Only = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Run these variants alone; repeat, or use commas.")
]
Seeds = Annotated[
    list[str] | None, typer.Option(metavar="SEED", help="Seeds instead of the file's; repeat, or use commas.")
]

_INTERRUPTED = 130  # what a shell reports of a program ended by Ctrl-C


@dataclass(frozen=True)
class Request:
    """What the command line asked of a study."""

    config: Path
    out: Path
    ranks: int
    parallel: int
    overrides: list[str]
    only: list[str]
    seeds: list[int]


def register(app: typer.Typer) -> None:
    """Add the commands of studies to ``app``."""
    app.command()(ablate)
    app.command()(scale)


def ablate(
    config: ConfigFile,
    out: OutFolder,
    ranks: Ranks = 1,
    parallel: Parallel = 1,
    overrides: Overrides = None,
    only: Only = None,
    seeds: Seeds = None,
) -> None:
    """Train and evaluate every variant with every seed, and compare them; Ctrl-C saves and stops."""
    from unigrf_dist.study.ablation import report
    from unigrf_dist.study.schema import read_ablation

    study = read_ablation(config)
    request = Request(config, out, ranks, parallel, overrides or [], _words(only), _numbers(seeds))
    outcome, runs, missing = run_study(study, request)
    report(study, runs, missing, outcome.failures, config=config, out=out)
    raise typer.Exit(_status(outcome))


def scale(
    config: ConfigFile,
    out: OutFolder,
    ranks: Ranks = 1,
    parallel: Parallel = 1,
    overrides: Overrides = None,
    only: Only = None,
    seeds: Seeds = None,
) -> None:
    """Train and evaluate a grid of depths and widths, and fit how losses and metrics improve with size."""
    from unigrf_dist.study.scaling import report
    from unigrf_dist.study.schema import read_scaling

    study = read_scaling(config)
    request = Request(config, out, ranks, parallel, overrides or [], _words(only), _numbers(seeds))
    outcome, runs, missing = run_study(study, request)
    report(study, runs, missing, outcome.failures, config=config, out=out)
    raise typer.Exit(_status(outcome))


def run_study(study: Study, request: Request) -> tuple[Outcome, list[RunMetrics], list[str]]:
    """Check everything, run what is not done yet, and read what is.

    Returns:
        How the runs ended; metrics of all finished runs of the study, also of those not asked for now; names of
        the runs that are not finished.

    Raises:
        UserError: before anything is run: a configuration is wrong, or a folder holds another run.
    """
    from rich.console import Console

    from unigrf_dist.study.plan import plan_trials
    from unigrf_dist.study.run_state import refuse_changed
    from unigrf_dist.study.runner import run_trials
    from unigrf_dist.study.watch import Watch

    if unknown := [name for name in request.only if name not in study.runs()]:
        raise UserError(f"--only {unknown[0]}: no such variant; there are: {', '.join(study.runs())}")
    everything = plan_trials(
        study,
        request.config,
        request.out,
        overrides=request.overrides,
        seeds=list(dict.fromkeys([*request.seeds, *study.seeds])),
        ranks=request.ranks,
    )
    asked = [
        trial
        for trial in everything
        if trial.seed in (request.seeds or study.seeds) and trial.variant in (request.only or study.runs())
    ]
    refuse_changed(asked)
    outcome = run_trials(asked, ranks=request.ranks, parallel=request.parallel, watch=Watch(Console()))
    return outcome, *_finished(everything, asked)


def _finished(everything: list[Trial], asked: list[Trial]) -> tuple[list[RunMetrics], list[str]]:
    from unigrf_dist.study.run_metrics import run_metrics
    from unigrf_dist.study.run_state import Stage, differences, stage

    # Runs of an earlier call count as long as they are still what the study says.
    done = [trial for trial in everything if stage(trial) is Stage.DONE and not differences(trial)]
    return [run_metrics(trial) for trial in done], [trial.name for trial in asked if trial not in done]


def _status(outcome: Outcome) -> int:
    return _INTERRUPTED if outcome.interrupted else int(bool(outcome.failures))


def _words(texts: list[str] | None) -> list[str]:
    return [word.strip() for text in texts or [] for word in text.split(",") if word.strip()]


def _numbers(texts: list[str] | None) -> list[int]:
    words = _words(texts)
    if bad := [word for word in words if not word.isdigit()]:
        raise UserError(f"--seeds {bad[0]}: a seed is a whole number from 0 up")
    return list(dict.fromkeys(map(int, words)))

"""The ``unigrf`` command. Each command is a few lines: read options, call one function, print its result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from unigrf_dist.errors import UserError

app = typer.Typer(
    help="One generative recommender for retrieval and ranking.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Measure on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")

RunFolder = Annotated[Path, typer.Option("--run", help="Folder of the run.")]
Ranks = Annotated[int, typer.Option(min=1, help="Processes on this machine; more than one start under deepspeed.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value.")]


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="YAML file of the run.")],
    run: RunFolder,
    ranks: Ranks = 1,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on from the run's latest checkpoint.")] = False,
) -> None:
    """Train a model; Ctrl-C saves and stops."""
    from unigrf_dist.config import load_config

    # What can be seen to be wrong without the ranks is told before they start.
    checked = load_config(config, overrides or [])

    from unigrf_dist.data import open_dataset
    from unigrf_dist.ranks.launch import launch
    from unigrf_dist.train.checks import refuse_absent_features, refuse_unmeasurable, task_labels, users_per_rank
    from unigrf_dist.train.run_folder import refuse_used_folder

    dataset = open_dataset(checked.data.path)
    task_labels(checked, dataset)
    refuse_absent_features(checked, dataset)
    refuse_unmeasurable(checked, dataset)
    users_per_rank(checked, ranks)
    if not resume:
        refuse_used_folder(run)
    arguments = ["--config", str(config), "--run", str(run)]
    arguments += [word for override in overrides or [] for word in ("--set", override)]
    raise typer.Exit(launch("unigrf_dist.train", arguments + ["--resume"] * resume, ranks=ranks))


@app.command()
def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    checkpoint: Annotated[str, typer.Option(help="best, latest or a checkpoint's name.")] = "best",
    ranks: Ranks = 1,
    overrides: Overrides = None,
) -> None:
    """Rank the whole catalogue for every user, and score the held-out events."""
    from unigrf_dist.ranks.launch import launch
    from unigrf_dist.train.run_folder import run_config

    if split not in ("test", "validation"):
        raise UserError(f"--split {split}: allowed are test and validation")
    run_config(run)
    arguments = ["--run", str(run), "--split", split, "--checkpoint", checkpoint]
    arguments += [word for override in overrides or [] for word in ("--set", override)]
    raise typer.Exit(launch("unigrf_dist.programs.evaluate", arguments, ranks=ranks))


@app.command()
def report(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="HTML file; report.html in the run's folder if left out.")
    ] = None,
) -> None:
    """Write one self-contained HTML page about a run."""
    from unigrf_dist.report import write_report

    typer.echo(f"report: {write_report(run, out)}")


@app.command()
def doctor() -> None:
    """Tell whether this machine can train, and what mends it if not."""
    from unigrf_dist.doctor import run as examine_machine

    raise typer.Exit(examine_machine())


@bench.command("train")
def bench_train(
    config: Annotated[Path, typer.Option(help="YAML file of the run to measure.")],
    ranks: Ranks = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps measured, after warm-up.")] = 20,
    overrides: Overrides = None,
    versus: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Compare, step by step in turns, with this changed as well."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="JSON file for the figures.")] = None,  # noqa: UP045
) -> None:
    """Interactions per second and milliseconds per phase of a training step, and what a change costs."""
    from unigrf_dist.config import load_config
    from unigrf_dist.ranks.launch import launch

    load_config(config, [*(overrides or []), *(versus or [])])
    arguments = ["--config", str(config), "--steps", str(steps)]
    arguments += [word for override in overrides or [] for word in ("--set", override)]
    arguments += [word for override in versus or [] for word in ("--versus", override)]
    arguments += ["--out", str(out)] if out else []
    raise typer.Exit(launch("unigrf_dist.programs.bench", arguments, ranks=ranks))


def main() -> None:
    """Run the command line; a user error is one line on stderr and exit status 2."""
    from unigrf_dist.programs import data as data_commands
    from unigrf_dist.programs import study as study_commands

    data_commands.register(app)
    study_commands.register(app)
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)

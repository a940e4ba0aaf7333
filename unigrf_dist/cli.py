"""The ``unigrf`` command. Each command is a few lines: read options, call one function, print its result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from unigrf_dist import __version__
from unigrf_dist.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Measure on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")

RunFolder = Annotated[Path, typer.Option("--run", help="Folder of the run.")]
Ranks = Annotated[int, typer.Option(min=1, help="Processes on this machine; more than one start under deepspeed.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value.")]


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"unigrf {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One generative recommender for retrieval and ranking."""


@app.command()
def train(
    run: RunFolder,
    config: Annotated[Path | None, typer.Option(help="YAML file of the run.")] = None,
    ranks: Ranks = 1,
    overrides: Overrides = None,
    refit: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Instead of --config: the recipe of RUN and the steps of its best checkpoint, trained on "
            "training and validation events.",
        ),
    ] = None,
    final: Annotated[
        bool, typer.Option("--final", help="With --refit: train on the test events as well, for deployment.")
    ] = False,
    resume: Annotated[bool, typer.Option(help="Continue from the run's latest checkpoint.")] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A resumed run may differ in this key; repeatable."),
    ] = None,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Times to go on from the latest checkpoint after ranks were lost.")
    ] = 0,
    elastic: Annotated[bool, typer.Option(help="Restart with the ranks that are left.")] = False,
    new_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="With --resume: go on with the days that were appended to this data set."
        ),
    ] = None,
) -> None:
    """Train a model; Ctrl-C saves and stops."""
    from unigrf_dist.programs.refit import recipe_of
    from unigrf_dist.programs.train import launch_training

    file, of_refit = recipe_of(config, refit, final=final)
    status = launch_training(
        file,
        run,
        ranks=ranks,
        overrides=[*of_refit, *(overrides or [])],
        resume=resume,
        allow_change=allow_change or [],
        max_restarts=max_restarts,
        elastic=elastic,
        new_data=new_data,
    )
    raise typer.Exit(status)


@app.command()
def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    day: Annotated[
        int | None, typer.Option(min=1, help="Instead: the first event of each user on this appended day.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, latest or a checkpoint's name.")] = "best",
    ranks: Ranks = 1,
    overrides: Overrides = None,
    blend: Annotated[
        bool, typer.Option("--blend", help="Also choose, on validation, how much ranking moves the lists.")
    ] = False,
) -> None:
    """Rank the whole catalogue for every user, and score the held-out events."""
    from unigrf_dist.programs.evaluate import launch_evaluation

    status = launch_evaluation(
        run, split=split, day=day, checkpoint=checkpoint, ranks=ranks, overrides=overrides or []
    )
    if blend and status == 0:
        from unigrf_dist.programs.blend import choose

        choose(run, checkpoint=checkpoint, overrides=overrides or [])
    raise typer.Exit(status)


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
    """Tell whether this machine can train, and what fixes it if not."""
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
    out: Annotated[Optional[Path], typer.Option(help="JSON file for the measurements.")] = None,  # noqa: UP045
) -> None:
    """Interactions per second and milliseconds per phase of a training step, and what a change costs."""
    from unigrf_dist.programs.bench import launch_bench

    raise typer.Exit(
        launch_bench(config, ranks=ranks, steps=steps, overrides=overrides or [], versus=versus or [], out=out)
    )


def main() -> None:
    """Run the command line; a user error is one line on stderr and exit status 2."""
    from unigrf_dist.programs import chaos as chaos_command
    from unigrf_dist.programs import config as config_commands
    from unigrf_dist.programs import data as data_commands
    from unigrf_dist.programs import export as export_command
    from unigrf_dist.programs import prepare_cost, save_pause, validation_cost
    from unigrf_dist.programs import recommend as recommend_command
    from unigrf_dist.programs import serve as serve_command
    from unigrf_dist.programs import study as study_commands
    from unigrf_dist.programs.bench_serve.command import bench_serve

    data_commands.register(app)
    study_commands.register(app)
    config_commands.register(app)
    chaos_command.register(app)
    bench.command("save")(save_pause.bench_save)
    bench.command("prepare")(prepare_cost.bench_prepare)
    bench.command("validation")(validation_cost.bench_validation)
    bench.command("serve")(bench_serve)
    recommend_command.register(app)
    export_command.register(app)
    serve_command.register(app)
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)

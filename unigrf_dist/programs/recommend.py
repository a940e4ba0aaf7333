"""``unigrf recommend``: lists for users of the data set or for given histories, into a file or the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unigrf_dist.errors import UserError
from unigrf_dist.programs.recommend_rank import Order, asked_for, launch_lists, options_of, write_file

if TYPE_CHECKING:
    from rich.table import Table

    from unigrf_dist.serve.recommender import Entry


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(recommend)


def recommend(
    run: Annotated[Path, typer.Option("--run", help="Folder of the run.")],
    user: Annotated[list[str] | None, typer.Option(help="Raw id of a user; repeatable.")] = None,
    users: Annotated[Path | None, typer.Option(help="Text file with one raw user id a line.")] = None,
    all_users: Annotated[bool, typer.Option("--all", help="Every user of the data set.")] = False,
    histories: Annotated[
        Path | None, typer.Option(help="Json lines with one history each; docs/serving.md.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Parquet file; a table in the terminal if left out.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Entries of a list.")] = 10,
    candidates: Annotated[int, typer.Option(min=1, help="Items that retrieval hands to ranking.")] = 100,
    seen: Annotated[
        Literal["exclude", "keep"], typer.Option(help="Whether items of the history may come again.")
    ] = "exclude",
    blend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=LAMBDA",
            help="Weight of a ranking task in the order; repeatable. What validation chose if left out.",
        ),
    ] = None,
    at: Annotated[
        int | None, typer.Option(help="Moment of the requests, in seconds; each user's last event if left out.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also write the scores of both stages.")] = False,
    checkpoint: Annotated[str, typer.Option(help="best, latest or a checkpoint's name.")] = "best",
    batch_users: Annotated[
        int, typer.Option(min=1, help="Users that a rank computes together; changes no list.")
    ] = 64,
    ranks: Annotated[
        int, typer.Option(min=1, help="Processes that share users and catalogue; changes no list.")
    ] = 1,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value.")
    ] = None,
) -> None:
    """Recommend items to users, with the raw ids of the data set."""
    sources = [bool(user), users is not None, all_users, histories is not None]
    if sum(sources) != 1:
        raise UserError("recommend: name the users by one of --user, --users, --all and --histories")
    if out is None and not user:
        raise UserError("recommend: --users, --all and --histories write a file; name it with --out")
    if out is None and ranks > 1:
        raise UserError(f"recommend: --ranks {ranks} writes a file; name it with --out")
    weights = blend_weights(blend) if blend else None
    order = Order(
        run=run,
        user=user,
        users=users,
        histories=histories,
        out=out,
        k=k,
        candidates=candidates,
        seen=seen,
        blend=weights,
        at=at,
        explain=explain,
        checkpoint=checkpoint,
        batch_users=batch_users,
        overrides=overrides,
    )
    if ranks > 1:
        raise typer.Exit(launch_lists(order, ranks))
    if out is not None:
        write_file(order)
    else:
        _print_lists(order)


def _print_lists(order: Order) -> None:
    from rich.console import Console

    from unigrf_dist.serve.recommender import Recommender

    recommender = Recommender(order.run, checkpoint=order.checkpoint, overrides=order.overrides or [])
    options, asked = options_of(order, recommender), asked_for(order, recommender)
    console = Console()
    for first in range(0, len(asked), order.batch_users):
        batch = asked.batch(first, order.batch_users)
        lists = recommender.lists(batch.histories, batch.at, options)
        for row, name in enumerate(asked.names(first, order.batch_users).to_pylist()):
            from_model = bool(lists.from_model[row])
            console.print(_table(name, recommender.entries(lists, row), recommender.tasks, from_model))
    for line in asked.problems():
        typer.echo(line, err=True)


def blend_weights(words: Sequence[str]) -> dict[str, float]:
    """``TASK=LAMBDA``, where the task is a rule and may hold signs of equality itself."""
    weights = {}
    for word in words:
        task, separator, value = word.rpartition("=")
        try:
            if not separator or not task.strip():
                raise ValueError
            weights[task.strip()] = float(value)
        except ValueError:
            raise UserError(f"--blend {word!r}: write TASK=LAMBDA, as in 'rating >= 4=0.25'") from None
    return weights


def _table(user: int | str, entries: Sequence[Entry], tasks: Sequence[str], from_model: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"user {user}" + ("" if from_model else ": no history, so the most popular items"))
    titled = any(entry.title is not None for entry in entries)
    for heading in ("rank", "item"):
        table.add_column(heading, justify="right")
    if titled:
        table.add_column("title", overflow="fold")
    for heading in ("score", "log p(retrieval)", *(f"p({task})" for task in tasks)):
        table.add_column(heading, justify="right")
    for rank, entry in enumerate(entries, start=1):
        probabilities = [f"{entry.probabilities[task]:.3f}" if from_model else "" for task in tasks]
        title = [Text(entry.title or "")] if titled else []
        scores = (f"{entry.score:.3f}", f"{entry.log_retrieval:.3f}")
        table.add_row(str(rank), str(entry.item), *title, *scores, *probabilities)
    return table

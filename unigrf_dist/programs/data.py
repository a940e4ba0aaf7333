"""The commands on data sets: prepare, synthesize, inspect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from unigrf_dist.prepare.progress import Progress

OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write; it appears only when all went well.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it holds something.")]


def register(app: typer.Typer) -> None:
    """Add the data commands to ``app``."""
    app.command()(prepare)
    app.command()(synthesize)
    app.command()(inspect)
    app.command()(compact)


def prepare(
    format: Annotated[str, typer.Argument(help="Raw format; an unknown name lists all formats.")],
    raw: Annotated[
        list[Path], typer.Option(help="Raw file, or the folder that holds the format's files; repeatable.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; it appears only when all went well.")
    ] = None,
    append: Annotated[
        Path | None,
        typer.Option(
            "--append", metavar="DIR", help="Join the events to this data set; its options are taken over."
        ),
    ] = None,
    on_bad_row: Annotated[
        Literal["error", "skip"],
        typer.Option(help="End at the first bad row, or leave bad rows out and count them."),
    ] = "error",
    max_skipped: Annotated[
        float | None, typer.Option(min=0, max=1, help="End if a larger share of the rows had to be skipped.")
    ] = None,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Keep the first of events alike in every respect.")
    ] = False,
    min_events: Annotated[int, typer.Option(min=1, help="Leave out users with fewer events.")] = 1,
    min_item_events: Annotated[int, typer.Option(min=1, help="Leave out items with fewer events.")] = 1,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MEANING=NAME",
            help="Own files: user=, item=, timestamp=, title=; repeatable: behaviour=, item_feature=, "
            "user_feature=.",
        ),
    ] = None,
    event_type: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Own files: text column with the kind of event.")
    ] = None,
    buckets: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=EDGES", help="Own files: lower edges for a continuous behaviour."),
    ] = None,
    partition: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Own files: column in the folders' names, NAME=VALUE."),
    ] = None,
    item_features: Annotated[
        Path | None, typer.Option(help="Own files: file of the item features; has the item column too.")
    ] = None,
    user_features: Annotated[
        Path | None, typer.Option(help="Own files: file of the user features; has the user column too.")
    ] = None,
    separator: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=CHARACTERS", help="Own files: separator of the values of an item feature."),
    ] = None,
    string_ids: Annotated[bool, typer.Option("--string-ids", help="Own files: ids are text.")] = False,
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns"], typer.Option(help="Own files: unit of times that are numbers.")
    ] = "s",
    delimiter: Annotated[
        str | None, typer.Option(help="csv: characters between columns; a tab for .tsv, else a comma.")
    ] = None,
    no_quotes: Annotated[bool, typer.Option("--no-quotes", help="csv: a double quote is like any other.")] = False,
    encoding: Annotated[str, typer.Option(help="csv: encoding of the text.")] = "utf-8",
    memory_limit: Annotated[str, typer.Option(help="Above it, sorting spills to disk beside the output.")] = "2GB",
    share: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Do share K of N, from 0/N, of the work ahead of the merge, then end."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn raw interactions into sequence Parquet."""
    from rich.console import Console

    from unigrf_dist.errors import UserError
    from unigrf_dist.prepare.append import append as append_day
    from unigrf_dist.prepare.columns import column_mapping
    from unigrf_dist.prepare.pipeline import prepare as prepare_dataset
    from unigrf_dist.prepare.pipeline import prepare_share
    from unigrf_dist.prepare.summary import summary_table
    from unigrf_dist.prepare.tasks import parse_share

    if share is not None and (append is not None or max_skipped is not None):
        raise UserError("--share goes with --out, and without --max-skipped, which is of the merge")
    if (out is None) == (append is None):
        raise UserError(
            "name the folder to write (--out DIR), or the data set to join the events to (--append DIR)"
        )
    mapping = column_mapping(
        format,
        column or [],
        string_ids=string_ids,
        time_unit=time_unit,
        delimiter=delimiter,
        no_quotes=no_quotes,
        encoding=encoding,
        event_type=event_type,
        buckets=buckets or [],
        partitions=partition or [],
        separators=separator or [],
        item_features=item_features,
        user_features=user_features,
    )
    with _progress_bar() as progress:
        options: dict[str, Any] = {
            "raw": raw,
            "on_bad_row": on_bad_row,
            "drop_duplicates": drop_duplicates,
            "min_events": min_events,
            "min_item_events": min_item_events,
            "columns": mapping,
            "memory_limit": memory_limit,
            "progress": progress,
        }
        if share is not None and out is not None:
            waits = prepare_share(format, parse_share(share), out=out, overwrite=overwrite, **options)
            rest = f"{waits}; start it again then" if waits else "done; once all are, merge without --share"
            Console().print(f"share {share}: {rest}")
            return
        options["max_skipped"] = max_skipped
        if append is not None:
            summary = append_day(format, into=append, **options)
        else:
            assert out is not None, "one of the two is given"
            summary = prepare_dataset(format, out=out, overwrite=overwrite, **options)
    Console().print(summary_table(summary))


def synthesize(
    out: OutFolder,
    users: Annotated[int, typer.Option(min=1)] = 4000,
    items: Annotated[int, typer.Option(min=1)] = 1000,
    mean_length: Annotated[float, typer.Option(help="Mean events of a user.")] = 50.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    days: Annotated[
        int, typer.Option(min=0, help="Write raw files instead: a base and so many days after it, to be appended.")
    ] = 0,
    drift: Annotated[
        float, typer.Option(min=0, max=1, help="With --days: how much tastes and successors change each day.")
    ] = 0.0,
    overwrite: Overwrite = False,
) -> None:
    """Draw interactions with a planted structure, whose best possible metrics are known."""
    from rich.console import Console

    from unigrf_dist.errors import UserError
    from unigrf_dist.prepare.summary import summary_table
    from unigrf_dist.synthetic import synthesize as synthesize_dataset
    from unigrf_dist.synthetic import synthesize_days

    sizes = {"num_users": users, "num_items": items, "mean_length": mean_length, "seed": seed}
    if days:
        with _progress_bar() as progress:
            files = synthesize_days(
                out,
                days=days,
                drift=drift,
                overwrite=overwrite,
                progress=progress,
                **sizes,  # type: ignore[arg-type]
            )
        for name, events in files.items():
            typer.echo(f"{out / name}: {events:,} events")
        return
    if drift:
        raise UserError("--drift is from day to day: give --days as well")
    with _progress_bar() as progress:
        summary = synthesize_dataset(
            out,
            overwrite=overwrite,
            progress=progress,
            **sizes,  # type: ignore[arg-type]
        )
    Console().print(summary_table(summary))


def inspect(
    folder: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    picture: Annotated[
        Path | None, typer.Option(help="PNG file to draw; inspect.png in the folder by default.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Also compare every file's SHA-256.")] = False,
) -> None:
    """Show what a data set holds, as a table and a picture."""
    from rich.console import Console

    from unigrf_dist.data.dataset import open_dataset
    from unigrf_dist.prepare.inspect import draw_picture, examine, inspection_table

    inspection = examine(open_dataset(folder, verify=verify))
    console = Console()
    console.print(inspection_table(inspection))
    console.print(f"picture: {draw_picture(inspection, picture or folder / 'inspect.png')}")


def compact(folder: Annotated[Path, typer.Argument(help="Folder of a data set with appended days.")]) -> None:
    """Fold appended days into the shards; ids and events stay."""
    from rich.console import Console

    from unigrf_dist.prepare.compact import compact as compact_dataset
    from unigrf_dist.prepare.summary import summary_table

    with _progress_bar() as progress:
        summary = compact_dataset(folder, progress=progress)
    Console().print(summary_table(summary))


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    from rich.progress import Progress as Bar

    with Bar(transient=True) as bar:
        tasks: dict[str, int] = {}

        def report(phase: str, share: float) -> None:
            if phase not in tasks:
                tasks[phase] = int(bar.add_task(phase, total=1.0))
            bar.update(tasks[phase], completed=share)  # type: ignore[arg-type]

        yield report

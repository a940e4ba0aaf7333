"""``unigrf export``: a folder that answers without the run, its data and the training packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from unigrf_dist.programs.recommend import blend_weights


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(export)


def export(
    run: Annotated[Path, typer.Option("--run", help="Folder of the run.")],
    out: Annotated[Path, typer.Option(help="Folder of the export; appears when it is complete.")],
    checkpoint: Annotated[str, typer.Option(help="best, latest or a checkpoint's name.")] = "best",
    blend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=LAMBDA", help="Weight of a ranking task where a request names none; repeatable."
        ),
    ] = None,
    quantize: Annotated[
        Literal["none", "int8"], typer.Option(help="int8 stores the tables with one byte per value.")
    ] = "none",
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Evaluate what is exported on the test split, for the model card.")
    ] = False,
    formats: Annotated[
        str, typer.Option(help="Graphs for other runtimes: pt2, aoti, onnx, with commas between them.")
    ] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value.")
    ] = None,
) -> None:
    """Write a folder with weights, items, model card and hashes, for unigrf_dist.from_pretrained."""
    weights = blend_weights(blend or [])

    from unigrf_dist.serve.export.write import export_run

    export_run(
        run,
        out,
        checkpoint=checkpoint,
        overrides=overrides or [],
        blend=weights,
        quantize=quantize,
        evaluate=evaluate,
        formats=[name.strip() for name in formats.split(",") if name.strip()],
    )
    files = [file for file in out.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    typer.echo(f"export: {out}, {len(files)} files, {size:,} bytes")
    typer.echo(f"next:  python -c \"from unigrf_dist import from_pretrained; from_pretrained('{out}')\"")

"""The commands that show configurations: config show, config reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unigrf_dist.errors import UserError

commands = typer.Typer(help="Look at configurations.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the group ``config`` to ``app``."""
    app.add_typer(commands, name="config")


@commands.command()
def show(
    config: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file of a run.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value.")
    ] = None,
) -> None:
    """Print a configuration with every default filled in."""
    from unigrf_dist.config import load_config
    from unigrf_dist.config.resolved import resolved_yaml

    typer.echo(resolved_yaml(load_config(config, overrides or [])), nl=False)


@commands.command()
def reference(
    out: Annotated[Path | None, typer.Option(help="Markdown file; printed if left out.")] = None,
) -> None:
    """Write the page of all configuration keys."""
    from unigrf_dist.config.reference import configuration_page

    page = configuration_page()
    if out is None:
        typer.echo(page, nl=False)
        return
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--out {out}: can't write the page: {error.strerror}; name a file in a folder that exists"
        ) from error

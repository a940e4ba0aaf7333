"""Renders the templates and writes the page."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from unigrf_dist.errors import UserError
from unigrf_dist.report.configuration import configuration
from unigrf_dist.report.metric_table import metrics_section
from unigrf_dist.report.palette import DARK, LIGHT
from unigrf_dist.report.run_data import RunData, read_run
from unigrf_dist.report.sections import (
    blend_section,
    calibration_and_data_section,
    training_section,
    validation_section,
)
from unigrf_dist.report.summary import summary
from unigrf_dist.report.svg import css_colour
from unigrf_dist.report.words import number

REPORT_FILE = "report.html"


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write one HTML page about a run; it needs nothing but itself.

    Args:
        run: folder of the run.
        out: file to write; ``report.html`` in the run's folder if None.

    Returns:
        The file written.

    Raises:
        UserError: there is no run, one of its files is damaged, or the page can't be written.
    """
    file = out or run / REPORT_FILE
    page = render(read_run(run))
    partial = file.with_name(file.name + ".partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise UserError(f"{file}: the report can't be written: {error.strerror}") from error
    return file


def render(data: RunData) -> str:
    """The page as text."""
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            summary=summary(data),
            metrics=metrics_section(data),
            validation=validation_section(data),
            training=training_section(data),
            blend=blend_section(data),
            user_lists=data.user_lists,
            calibration=calibration_and_data_section(data),
            configuration=configuration(data),
            light=LIGHT,
            dark=DARK,
            written=datetime.now(tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("unigrf_dist.report"),
        # Names of runs, tasks and features are the user's, and may look like markup.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, css_colour=css_colour)
    return environment

"""Puts the page together and writes it."""

from __future__ import annotations

from datetime import datetime, timezone
from html import escape
from pathlib import Path

from unigrf_dist.errors import UserError
from unigrf_dist.report.run_data import RunData, read_run
from unigrf_dist.report.sections import (
    calibration_and_data_section,
    configuration_section,
    metrics_section,
    training_section,
    validation_section,
)
from unigrf_dist.report.style import STYLE
from unigrf_dist.report.summary import summary

REPORT_FILE = "report.html"


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write one HTML page about a run; it needs nothing but itself.

    Args:
        run: the run's folder.
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
    body = "".join(
        part(data)
        for part in (
            summary,
            metrics_section,
            validation_section,
            training_section,
            calibration_and_data_section,
            configuration_section,
        )
    )
    written = datetime.now(tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(data.run.resolve().name)} – unigrf report</title><style>{STYLE}</style></head>"
        f"<body><main>{body}<footer>Written {written} by <code>unigrf report</code>.</footer></main></body>"
        "</html>\n"
    )

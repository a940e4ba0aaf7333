"""A comparison for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from unigrf_dist.report.words import DASH, duration, metric_name
from unigrf_dist.study.metric_names import is_less_better, is_of_first_task
from unigrf_dist.study.results import Cell, Comparison
from unigrf_dist.study.statistics import Difference, Estimate

_COLOURS = {"better": "green", "worse": "red", "undecided": "dim", "one seed": "dim"}
# What six metrics leave of 80 columns.
_NAME_WIDTH = 13
_SIGNS = {"better": "▲", "worse": "▼", "undecided": "·", "one seed": " "}


def means_table(comparison: Comparison) -> Table:
    """Mean and half-width of its interval, one row per variant; six metrics fit 80 columns."""
    table = _table("test split: mean ± half-width of the 95 % interval", comparison.metrics, _notes(comparison))
    for name in _with_metrics(comparison):
        row = [_two_lines(comparison.cells[name].get(metric)) for metric in comparison.metrics]
        table.add_row(escape(_broken(name)), str(len(comparison.seeds[name])), *row, end_section=True)
    return table


def differences_table(comparison: Comparison) -> Table:
    """Paired difference to the baseline and its verdict, one row per variant."""
    table = _table(f"difference to {comparison.baseline}, paired by seed", comparison.metrics, verdict_words())
    for name in _with_metrics(comparison):
        if name == comparison.baseline:
            continue
        cells = [comparison.cells[name].get(metric) for metric in comparison.metrics]
        differences = [None if cell is None else cell.difference for cell in cells]
        counts = {each.estimate.count for each in differences if each is not None}
        row = [_coloured(each) for each in differences]
        table.add_row(escape(_broken(name)), str(max(counts, default=0)), *row, end_section=True)
    return table


def verdict_words() -> str:
    """How to read the differences."""
    return (
        "▲ better, ▼ worse: the 95 % interval excludes 0; · undecided; "
        "no sign: one common seed, no interval; ↓ less is better. One interval in twenty misses by chance"
    )


def markdown(comparison: Comparison, *, study: Path, plot: str | None) -> str:
    """``results.md``: both tables, the runs, and what is missing.

    Args:
        comparison: comparison to write down.
        study: file of the study.
        plot: name of the drawing beside it; None if there is none.
    """
    parts = [
        f"# {study.stem}: {study}",
        "Test split, checkpoint chosen on validation. Mean ± half-width of the 95 % interval (Student's t over "
        f"seeds). {_notes(comparison)}".strip(),
        _markdown_table(
            ["", "seeds", *map(_title, comparison.metrics), ""],
            [
                [f"**{name}**" if name == comparison.baseline else name, str(len(comparison.seeds[name]))]
                + [_one_line(comparison.cells[name].get(metric)) for metric in comparison.metrics]
                + [comparison.variants[name].description]
                for name in _with_metrics(comparison)
            ],
        ),
        *(_differences(comparison, plot) if plot else []),
        "## Runs",
        _markdown_table(
            ["variant", "seed", *map(_title, comparison.metrics), "best epoch", "training", "parameters"],
            [
                [
                    run.variant,
                    str(run.seed),
                    *(_number(run.value(metric)) for metric in comparison.metrics),
                    _whole(run.best_epoch),
                    duration(run.train_seconds),
                    f"{run.dense_parameters + run.table_parameters:,}",
                ]
                for run in comparison.runs
            ],
        ),
    ]
    parts += [f"Not finished: {', '.join(comparison.missing)}."] if comparison.missing else []
    return "\n\n".join(parts) + "\n"


def _differences(comparison: Comparison, plot: str) -> list[str]:
    return [
        f"## Difference to {comparison.baseline}",
        f"Paired by seed. {verdict_words()}.",
        _markdown_table(
            ["", *map(_title, comparison.metrics)],
            [
                [name, *(_difference_words(comparison.cells[name].get(metric)) for metric in comparison.metrics)]
                for name in _with_metrics(comparison)
                if name != comparison.baseline
            ],
        ),
        f"![differences]({plot})",
    ]


def _with_metrics(comparison: Comparison) -> list[str]:
    return [name for name in comparison.variants if comparison.seeds[name]]


def _broken(name: str) -> str:
    """The name over several lines, so that six metrics fit beside it."""
    lines = [""]
    for part in name.replace("_", "_ ").split():
        lines = [*lines[:-1], lines[-1] + part] if len(lines[-1] + part) <= _NAME_WIDTH else [*lines, part]
    return "\n".join(line for line in lines if line)


def _notes(comparison: Comparison) -> str:
    note = f"{DASH} where the task was not trained, or the variant has no such task."
    if comparison.first_tasks and any(is_of_first_task(metric) for metric in comparison.metrics):
        note += f" Ranking metrics without a rule: of the first task, {', '.join(comparison.first_tasks)}."
    if comparison.some_single:
        note += " In brackets: one seed only, so the 95 % interval is bootstrapped over users, not over seeds."
    return note


def _table(title: str, metrics: Sequence[str], caption: str) -> Table:
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    table.add_column("variant", no_wrap=True)
    table.add_column("n", justify="right", style="dim")
    for metric in metrics:
        # A rule below its metric, so that more columns fit.
        table.add_column(escape(_title(metric).replace(" [", "\n[")), justify="right", no_wrap=True)
    return table


def _title(metric: str) -> str:
    return metric_name(metric) + " ↓" * is_less_better(metric)


def _two_lines(cell: Cell | None) -> str:
    if cell is None:
        return DASH
    if cell.users is not None:
        low, high = cell.users
        return f"{cell.estimate.mean:.4f}\n[dim]({_number(low)}–\n{_number(high)})[/]"
    return f"{cell.estimate.mean:.4f}\n[dim]{_half(cell.estimate)}[/]"


def _one_line(cell: Cell | None) -> str:
    if cell is None:
        return DASH
    if cell.users is not None:
        return f"{cell.estimate.mean:.4f} ({_number(cell.users[0])}–{_number(cell.users[1])})"
    return f"{cell.estimate.mean:.4f} {_half(cell.estimate)}"


def _coloured(difference: Difference | None) -> str:
    if difference is None:
        return DASH
    text = f"{_signed(difference)}\n{_SIGNS[difference.verdict]}{_half(difference.estimate)}"
    return f"[{_COLOURS[difference.verdict]}]{text}[/]"


def _difference_words(cell: Cell | None) -> str:
    if cell is None or cell.difference is None:
        return DASH
    difference = cell.difference
    words = f"{_signed(difference)} {_half(difference.estimate)}".strip()
    return f"{words} {difference.verdict if difference.verdict != 'one seed' else '(one seed)'}"


def _signed(difference: Difference) -> str:
    # Adding 0 turns the -0.0 that rounding may leave into 0.0.
    return f"{round(difference.estimate.mean, 4) + 0.0:+.4f}"


def _half(estimate: Estimate) -> str:
    return "" if estimate.half_width is None else f"±{estimate.half_width:.4f}"


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.4f}"


def _whole(value: int | None) -> str:
    return DASH if value is None else str(value)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

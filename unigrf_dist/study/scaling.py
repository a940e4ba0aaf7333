"""What a scaling study writes and shows: losses and metrics against size, and fitted laws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from unigrf_dist.model.flops import CONVENTION
from unigrf_dist.report.words import metric_name
from unigrf_dist.study.ablation import say_what_is_missing
from unigrf_dist.study.curves import Curve, SizedRun, curves, sized_runs
from unigrf_dist.study.metric_names import is_of_first_task
from unigrf_dist.study.power_law import PowerLaw
from unigrf_dist.study.results import write_results
from unigrf_dist.study.run_metrics import RunMetrics
from unigrf_dist.study.runner import Failure
from unigrf_dist.study.scaling_plot import draw_curves
from unigrf_dist.study.schema import Scaling
from unigrf_dist.study.statistics import estimate


def report(
    study: Scaling,
    runs: Sequence[RunMetrics],
    missing: Sequence[str],
    failures: Sequence[Failure],
    *,
    config: Path,
    out: Path,
) -> None:
    """Write the sizes, metrics and fitted laws of the finished runs into ``out``, and show them.

    Args:
        study: study that was run.
        runs: finished runs.
        missing: names of the runs that are not finished.
        failures: runs that ended with an error.
        config: file of the study.
        out: folder of the study.
    """
    console = Console()
    sized = sized_runs(runs)
    fitted = curves(study, sized) if sized else []
    record = _record(study, sized, fitted)
    left = {"missing": list(missing), "failed": [failure.trial.name for failure in failures]}
    write_results(out, {"kind": "scaling", "study": str(config), **record, **left})
    if sized:
        draw_curves(fitted, sized, out / "results")
        reasons = {law if isinstance(law, str) else None for curve in fitted for law in curve.laws.values()}
        tables = [_sizes_table(study, sized), *([] if None not in reasons else [_laws_table(fitted)])]
        (out / "results.md").write_text(_markdown(config, tables), encoding="utf-8")
        for table in tables:
            console.print(table)
        if None not in reasons:
            console.print(f"no law fitted: {reasons.pop()}")
        console.print(f"written to {out}/results.json, .md, .svg, .png", highlight=False)
    say_what_is_missing(console, missing, failures)


def _record(study: Scaling, runs: Sequence[SizedRun], fitted: Sequence[Curve]) -> dict[str, Any]:
    return {
        "flops_convention": CONVENTION,
        "metrics": study.metrics,
        "runs": [
            {**each.run.to_dict(), "blocks": each.blocks, "width": each.width, "training_flops": each.flops}
            for each in runs
        ],
        "curves": {
            curve.name: {against: _law_record(law) for against, law in curve.laws.items()} for curve in fitted
        },
    }


def _law_record(law: PowerLaw | str) -> dict[str, Any]:
    if isinstance(law, str):
        return {"reason": law}
    names = ("a", "b", "c", "a_interval", "c_interval", "determined", "residual")
    return {name: getattr(law, name) for name in names}


def _sizes_table(study: Scaling, runs: Sequence[SizedRun]) -> Table:
    caption = f"weights: dense + item table; FLOPs: {CONVENTION}"
    if any(is_of_first_task(metric) for metric in study.metrics):
        tasks = dict.fromkeys(each.run.first_task for each in runs)
        caption += f"; ranking metrics without a rule: of the first task, {', '.join(tasks)}"
    table = Table(title="test split, means over seeds", caption=caption)
    table.box, table.collapse_padding, table.pad_edge = SIMPLE_HEAD, True, False
    for column in (
        "size",
        "n",
        "weights",
        "FLOPs",
        *(_heading(metric) for metric in study.metrics),
    ):
        table.add_column(column, justify="left" if column == "size" else "right", no_wrap=True)
    for name in dict.fromkeys(each.run.variant for each in runs):
        own = [each for each in runs if each.run.variant == name]
        first = own[0]
        weights = f"{_short(first.run.dense_parameters)}\n+{_short(first.run.table_parameters)}"
        cells = [name, str(len(own)), weights]
        cells.append(f"{np.mean([each.flops for each in own]):.1e}".replace("e+", "e"))
        for metric in study.metrics:
            values = [value for each in own if (value := each.run.value(metric)) is not None]
            cells.append(f"{estimate(values).mean:.4f}" if values else "–")
        table.add_row(*cells)
    return table


def _heading(metric: str) -> str:
    """Words of the metric below one another, and its task below them, so that columns stay narrow."""
    name, bracket, rule = metric_name(metric).partition(" [")
    return name.replace(" ", "\n") + escape(f"\n[{rule}" * bool(bracket))


def _short(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.0f}k" if number >= 1e4 else str(number)


def _laws_table(fitted: Sequence[Curve]) -> Table:
    table = Table(
        title="a + b C^-c",
        caption="95 % intervals from resampled residuals; c? where the points do not determine floor and "
        "exponent: the law is then no forecast",
        box=SIMPLE_HEAD,
    )
    for column in ("loss or metric", "against C =", "a", "c"):
        table.add_column(column, justify="left" if column in ("loss or metric", "against C =") else "right")
    for curve in fitted:
        for against, law in curve.laws.items():
            cells = [law, ""] if isinstance(law, str) else _law_cells(law)
            table.add_row(escape(curve.name), against, *cells)
    return table


def _law_cells(law: PowerLaw) -> list[str]:
    a = f"{law.a:.4f} ({law.a_interval[0]:.4f}–{law.a_interval[1]:.4f})"
    c = f"{law.c:.2f} ({law.c_interval[0]:.2f}–{law.c_interval[1]:.2f})"
    return [a, c if law.determined else f"c? {c}"]


def _markdown(config: Path, tables: Sequence[Table]) -> str:
    parts = [f"# {config.stem}: {config}", "![curves](results.svg)"]
    for table in tables:
        columns = [[_plain(str(cell)) for cell in column.cells] for column in table.columns]
        lines = [
            [_plain(str(column.header)) for column in table.columns],
            ["---"] * len(columns),
            *zip(*columns, strict=True),
        ]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [f"## {table.title}", text, f"{table.caption}."]
    return "\n\n".join(parts) + "\n"


def _plain(cell: str) -> str:
    """A cell of the terminal's table on one line, without its markup."""
    return Text.from_markup(cell).plain.replace("\n", " ").replace("|", "\\|")

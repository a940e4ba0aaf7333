"""What a scaling study writes and shows: figures against parameters and FLOPs, and fitted laws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unigrf_dist.config import load_config
from unigrf_dist.data import open_dataset
from unigrf_dist.report.words import metric_name
from unigrf_dist.study.ablation import say_what_is_missing
from unigrf_dist.study.figures import RunFigures
from unigrf_dist.study.flops import CONVENTION, epoch_flops
from unigrf_dist.study.power_law import PowerLaw, fit_power_law
from unigrf_dist.study.results import write_results
from unigrf_dist.study.runner import Failure
from unigrf_dist.study.schema import Scaling
from unigrf_dist.study.statistics import LESS_IS_BETTER, estimate
from unigrf_dist.train.run_folder import CONFIG_FILE

Against = Literal["training FLOPs", "parameters"]
AXES: tuple[Against, ...] = ("training FLOPs", "parameters")


@dataclass(frozen=True)
class SizedRun:
    """A finished run, and what it cost.

    Attributes:
        run: its figures.
        blocks: of the model.
        width: of the model.
        flops: of its whole training.
    """

    run: RunFigures
    blocks: int
    width: int
    flops: float

    @property
    def parameters(self) -> int:
        return self.run.dense_parameters + self.run.table_parameters

    def size(self, against: Against) -> float:
        return self.flops if against == "training FLOPs" else float(self.parameters)


@dataclass(frozen=True)
class Curve:
    """A figure that should fall with size.

    Attributes:
        name: of the figure; ``1 - metric`` where more of the metric is better.
        values: by run, in the order of the runs; NaN where there is none.
        laws: by axis, the fitted law or why there is none.
    """

    name: str
    values: np.ndarray
    laws: Mapping[Against, PowerLaw | str]


def sized_runs(runs: Sequence[RunFigures]) -> list[SizedRun]:
    """Runs with their costs, read from their configurations and data."""
    found, flops = [], {}
    for run in runs:
        config = load_config(Path(run.folder) / CONFIG_FILE)
        if run.variant not in flops:
            flops[run.variant] = epoch_flops(config, open_dataset(config.data.path))
        spent = flops[run.variant] * run.steps / run.steps_per_epoch
        found.append(SizedRun(run, config.model.blocks, config.model.width, spent))
    return found


def curves(study: Scaling, runs: Sequence[SizedRun]) -> list[Curve]:
    """Both training losses and every metric of the study, each fitted against both axes."""
    tasks = [task for task in ("retrieval", "ranking") if not any(task in each.run.untrained for each in runs)]
    series = {f"{task} loss (training)": [each.run.training_loss[task] for each in runs] for task in tasks}
    for metric in study.metrics:
        values = [np.nan if (value := each.run.value(metric)) is None else value for each in runs]
        rising = metric not in LESS_IS_BETTER
        name = f"1 - {metric_name(metric)}" if rising else metric_name(metric)
        series[name] = [1 - value for value in values] if rising else values
    return [_curve(name, np.array(values, dtype=float), runs) for name, values in series.items()]


def _curve(name: str, values: np.ndarray, runs: Sequence[SizedRun]) -> Curve:
    there = np.isfinite(values)
    laws = {
        against: fit_power_law(np.array([each.size(against) for each in runs])[there], values[there])
        for against in AXES
    }
    return Curve(name, values, laws)


def report(
    study: Scaling,
    runs: Sequence[RunFigures],
    missing: Sequence[str],
    failures: Sequence[Failure],
    *,
    config: Path,
    out: Path,
) -> None:
    """Write everything that finished runs say into ``out``, and show it.

    Args:
        study: what was asked.
        runs: finished ones.
        missing: names of those that are not.
        failures: those that ended with an error.
        config: file of the study.
        out: folder of the study.
    """
    from unigrf_dist.study.scaling_plot import draw_curves

    console = Console()
    sized = sized_runs(runs)
    found = curves(study, sized) if sized else []
    record = _record(study, sized, found)
    left = {"missing": list(missing), "failed": [failure.trial.name for failure in failures]}
    write_results(out, {"kind": "scaling", "study": str(config), **record, **left})
    if sized:
        draw_curves(found, sized, out / "results")
        reasons = {law if isinstance(law, str) else None for curve in found for law in curve.laws.values()}
        tables = [_sizes_table(study, sized), *([] if None not in reasons else [_laws_table(found)])]
        (out / "results.md").write_text(_markdown(config, tables), encoding="utf-8")
        for table in tables:
            console.print(table)
        if None not in reasons:
            console.print(f"no law fitted: {reasons.pop()}")
        console.print(f"written to {out}/results.json, .md, .svg, .png", highlight=False)
    say_what_is_missing(console, missing, failures)


def _record(study: Scaling, runs: Sequence[SizedRun], found: Sequence[Curve]) -> dict[str, Any]:
    return {
        "flops_convention": CONVENTION,
        "metrics": study.metrics,
        "runs": [
            {**each.run.to_dict(), "blocks": each.blocks, "width": each.width, "training_flops": each.flops}
            for each in runs
        ],
        "curves": {
            curve.name: {against: _law_record(law) for against, law in curve.laws.items()} for curve in found
        },
    }


def _law_record(law: PowerLaw | str) -> dict[str, Any]:
    if isinstance(law, str):
        return {"reason": law}
    names = ("a", "b", "c", "a_interval", "c_interval", "determined", "residual")
    return {name: getattr(law, name) for name in names}


def _sizes_table(study: Scaling, runs: Sequence[SizedRun]) -> Table:
    table = Table(
        title="test split, means over seeds", caption=f"weights: dense + item table; FLOPs: {CONVENTION}"
    )
    table.box, table.collapse_padding, table.pad_edge = SIMPLE_HEAD, True, False
    for column in (
        "size",
        "n",
        "weights",
        "FLOPs",
        *(metric_name(name).replace(" ", "\n") for name in study.metrics),
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


def _short(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.0f}k" if number >= 1e4 else str(number)


def _laws_table(found: Sequence[Curve]) -> Table:
    table = Table(
        title="a + b C^-c",
        caption="95 % intervals from resampled residuals; c? where the points do not determine floor and "
        "exponent: the law is then no forecast",
        box=SIMPLE_HEAD,
    )
    for column in ("figure", "against C =", "a", "c"):
        table.add_column(column, justify="left" if column in ("figure", "against C =") else "right")
    for curve in found:
        for against, law in curve.laws.items():
            cells = [law, ""] if isinstance(law, str) else _law_cells(law)
            table.add_row(curve.name, against, *cells)
    return table


def _law_cells(law: PowerLaw) -> list[str]:
    a = f"{law.a:.4f} ({law.a_interval[0]:.4f}–{law.a_interval[1]:.4f})"
    c = f"{law.c:.2f} ({law.c_interval[0]:.2f}–{law.c_interval[1]:.2f})"
    return [a, c if law.determined else f"c? {c}"]


def _markdown(config: Path, tables: Sequence[Table]) -> str:
    parts = [f"# {config.stem}: {config}", "![curves](results.svg)"]
    for table in tables:
        columns = [[str(cell).replace("\n", " ") for cell in column.cells] for column in table.columns]
        lines = [
            [str(column.header) for column in table.columns],
            ["---"] * len(columns),
            *zip(*columns, strict=True),
        ]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [f"## {table.title}", text, f"{table.caption}."]
    return "\n\n".join(parts) + "\n"

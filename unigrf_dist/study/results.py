"""From the metrics of runs to means, intervals and differences; and ``results.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigrf_dist.errors import UserError
from unigrf_dist.study.run_metrics import Interval, RunMetrics
from unigrf_dist.study.runner import Failure
from unigrf_dist.study.schema import Ablation, Variant
from unigrf_dist.study.statistics import LEVEL, Difference, Estimate, estimate, paired_difference

RESULTS_FILE = "results.json"
SCHEMA = 2


@dataclass(frozen=True)
class Cell:
    """A test metric of a variant.

    Attributes:
        estimate: mean and interval over seeds.
        users: bootstrap interval over users of the one run; None where there are several seeds.
        difference: paired difference to the baseline; None for the baseline itself, and where no seed is common.
    """

    estimate: Estimate
    users: Interval | None
    difference: Difference | None


@dataclass(frozen=True)
class Comparison:
    """The variants of a study side by side.

    Attributes:
        metrics: names of the metrics, in the order of the tables.
        baseline: name of the variant that others are compared with.
        variants: all variants by name, in the order of the tables.
        cells: by variant and metric; absent where there is no value.
        runs: finished runs.
        seeds: by variant, seeds of its finished runs.
        missing: runs of the study that are not finished.
        failures: runs that ended with an error just now.
    """

    metrics: Sequence[str]
    baseline: str
    variants: Mapping[str, Variant]
    cells: dict[str, dict[str, Cell]]
    runs: Sequence[RunMetrics]
    seeds: dict[str, list[int]]
    missing: Sequence[str]
    failures: Sequence[Failure]

    @property
    def first_tasks(self) -> list[str]:
        """First ranking tasks of the runs; more than one where variants differ in them."""
        return list(dict.fromkeys(run.first_task for run in self.runs))

    @property
    def some_single(self) -> bool:
        """Whether an interval over users stands in for one over seeds."""
        return any(cell.users is not None for row in self.cells.values() for cell in row.values())


def compare(
    study: Ablation, runs: Sequence[RunMetrics], *, missing: Sequence[str] = (), failures: Sequence[Failure] = ()
) -> Comparison:
    """Tabulate finished runs."""
    variants = study.runs()
    by_variant = {name: [run for run in runs if run.variant == name] for name in variants}
    cells: dict[str, dict[str, Cell]] = {}
    for name, own in by_variant.items():
        row = {metric: _cell(metric, own, by_variant[study.baseline], study.baseline) for metric in study.metrics}
        cells[name] = {metric: cell for metric, cell in row.items() if cell is not None}
    seeds = {name: [run.seed for run in own] for name, own in by_variant.items()}
    return Comparison(study.metrics, study.baseline, variants, cells, runs, seeds, missing, failures)


def _cell(metric: str, runs: Sequence[RunMetrics], baseline: Sequence[RunMetrics], name: str) -> Cell | None:
    values = _by_seed(metric, runs)
    if not values:
        return None
    mean = estimate(list(values.values()))
    users = next(run for run in runs if run.seed in values).test_interval.get(metric) if mean.count == 1 else None
    itself = runs[0].variant == name
    difference = None if itself else paired_difference(metric, values, _by_seed(metric, baseline))
    return Cell(mean, users, difference)


def _by_seed(metric: str, runs: Sequence[RunMetrics]) -> dict[int, float]:
    values = {run.seed: run.value(metric) for run in runs}
    return {seed: value for seed, value in values.items() if value is not None}


def write_results(out: Path, record: Mapping[str, Any]) -> Path:
    """Write ``results.json``; it is whole at any moment.

    Raises:
        UserError: it can't be written.
    """
    file = out / RESULTS_FILE
    partial = file.with_suffix(".json.partial")
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA, "confidence_level": LEVEL, **record}, indent=1, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise UserError(f"{file}: the results can't be written: {error.strerror}") from error
    return file


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """The comparison as ``results.json`` holds it."""
    return {
        "baseline": comparison.baseline,
        "metrics": list(comparison.metrics),
        "variants": {
            name: {
                "description": variant.description,
                "overrides": variant.overrides,
                "seeds": comparison.seeds[name],
                "metrics": {metric: _cell_record(cell) for metric, cell in comparison.cells[name].items()},
            }
            for name, variant in comparison.variants.items()
        },
        "runs": [run.to_dict() for run in comparison.runs],
        "missing": list(comparison.missing),
        "failed": [
            {"run": failure.trial.name, "reason": failure.reason, "log": str(failure.log)}
            for failure in comparison.failures
        ],
    }


def _cell_record(cell: Cell) -> dict[str, Any]:
    record = _estimate_record(cell.estimate)
    if cell.users is not None:
        record.update(low=cell.users[0], high=cell.users[1], interval="bootstrap over users of one run")
    if cell.difference is not None:
        difference = {**_estimate_record(cell.difference.estimate), "verdict": cell.difference.verdict}
        record["difference"] = difference
    return record


def _estimate_record(estimate: Estimate) -> dict[str, Any]:
    half = estimate.half_width
    return {
        "mean": estimate.mean,
        "deviation": estimate.deviation,
        "half_width": half,
        "low": None if half is None else estimate.mean - half,
        "high": None if half is None else estimate.mean + half,
        "interval": None if half is None else "Student's t over seeds",
        "seeds": estimate.count,
    }

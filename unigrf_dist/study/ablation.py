"""What an ablation writes and shows: results.json, results.md, the drawing, two tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from unigrf_dist.study.plot import draw_differences
from unigrf_dist.study.results import compare, comparison_record, write_results
from unigrf_dist.study.run_metrics import RunMetrics
from unigrf_dist.study.runner import Failure
from unigrf_dist.study.schema import Ablation
from unigrf_dist.study.table import differences_table, markdown, means_table


def report(
    study: Ablation,
    runs: Sequence[RunMetrics],
    missing: Sequence[str],
    failures: Sequence[Failure],
    *,
    config: Path,
    out: Path,
) -> None:
    """Write the comparison of the finished runs into ``out``, and show it.

    Args:
        study: study that was run.
        runs: finished runs.
        missing: names of the runs that are not finished.
        failures: runs that ended with an error.
        config: file of the study.
        out: folder of the study.
    """
    console = Console()
    comparison = compare(study, runs, missing=missing, failures=failures)
    write_results(out, {"kind": "ablation", "study": str(config), **comparison_record(comparison)})
    if runs:
        others = any(run.variant != study.baseline for run in runs)
        drawing = draw_differences(comparison, out / "results")[0].name if others else None
        (out / "results.md").write_text(markdown(comparison, study=config, plot=drawing), encoding="utf-8")
        console.print(means_table(comparison))
        if others:
            console.print(differences_table(comparison))
        console.print(f"written to {out}/results.json, .md{', .svg, .png' * others}", highlight=False)
    say_what_is_missing(console, missing, failures)


def say_what_is_missing(console: Console, missing: Sequence[str], failures: Sequence[Failure]) -> None:
    """Show failed runs with the path of their log, and how to go on."""
    for failure in failures:
        console.print(f"[red]failed[/] {escape(failure.trial.name)}: {escape(failure.reason)}", highlight=False)
        console.print(f"       log: {failure.log}", highlight=False, soft_wrap=True)
    if missing:
        console.print(f"{len(missing)} runs are not finished; the same command goes on with them", highlight=False)

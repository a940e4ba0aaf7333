"""``unigrf bench train``: how fast a configuration trains here, where the time goes, and what a change costs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unigrf_dist.ranks.worker import run_worker


def launch_bench(
    config_file: Path,
    *,
    ranks: int = 1,
    steps: int = 20,
    overrides: Sequence[str] = (),
    versus: Sequence[str] = (),
    out: Path | None = None,
) -> int:
    """Measure training steps on ``ranks`` ranks of this machine.

    Args:
        config_file: YAML file of the run to measure.
        ranks: processes on this machine.
        steps: steps measured, after warm-up.
        overrides: ``key=value`` of the configuration.
        versus: ``key=value`` of a second configuration, on top of ``overrides``; empty to compare nothing.
        out: JSON file for the measurements.

    Returns:
        Exit status of the ranks.

    Raises:
        UserError: before any rank starts: the configuration is wrong.
    """
    from unigrf_dist.config import load_config

    load_config(config_file, [*overrides, *versus])

    from unigrf_dist.ranks.launch import launch, repeated

    arguments = ["--config", str(config_file), "--steps", str(steps)]
    arguments += [*repeated("--set", overrides), *repeated("--versus", versus)]
    arguments += ["--out", str(out)] if out else []
    return launch("unigrf_dist.programs.bench", arguments, ranks=ranks)


def main() -> None:
    """One rank."""
    parser = argparse.ArgumentParser(prog="unigrf_dist.programs.bench", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--versus", action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--local_rank", type=int)
    arguments = parser.parse_args()
    run_worker(lambda: _bench(arguments))


def _bench(arguments: argparse.Namespace) -> int:
    from unigrf_dist.config import load_config
    from unigrf_dist.ranks.announce import announce_once
    from unigrf_dist.ranks.runtime import start

    configs = [load_config(arguments.config, arguments.set)]
    if arguments.versus:
        configs.append(load_config(arguments.config, [*arguments.set, *arguments.versus]))
    runtime = start(configs[0].train.timeout_seconds, announce_once)

    from unigrf_dist.phases import Phases
    from unigrf_dist.programs.step_times import Subject, compare, measure
    from unigrf_dist.train.build import build_parts

    subjects = [Subject(build_parts(config, runtime, Phases(timed=True))) for config in configs]
    measure(subjects, arguments.steps)
    if runtime.is_main:
        metrics = [subject.metrics() for subject in subjects]
        report = metrics[0]
        if arguments.versus:
            report["versus"] = {"set": arguments.versus, **metrics[1], **compare(*subjects)}
        _show(report)
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(
        "phase", title=f"{report['interactions_per_second']:,.0f} interactions/s on {report['ranks']} rank(s)"
    )
    table.add_column("ms per step", justify="right")
    table.add_column("share", justify="right")
    first, second = _phases(report), _phases(report.get("versus"))
    if second:
        table.add_column(f"with {' '.join(report['versus']['set'])}", justify="right")
        table.add_column("median difference", justify="right")
    for name in [*(name for name in {**first, **second} if name != "all"), "all"]:
        cells = ["", ""]
        if name in first:
            cells = [f"{first[name]:.1f}", f"{first[name] / report['milliseconds_per_step']:.0%}"]
        if second:
            more = report["versus"]["milliseconds_more_by_phase"].get(name)
            cells += [f"{second[name]:.1f}" if name in second else "", "" if more is None else f"{more:+.1f}"]
        table.add_row(name, *cells)
    console.print(table)
    both = " for both" if "versus" in report else ""
    memory = f"peak {report['peak_memory_mib']:,.0f} MiB{both}"
    console.print(f"{report['interactions_per_step']:,.0f} per step, {memory}")
    if "versus" in report:
        ratio = report["versus"]["ratio"]
        console.print(
            f"A step takes {ratio['median']:.3f} times as long with the change "
            f"(median; 95 % interval {ratio['low']:.3f} to {ratio['high']:.3f})"
        )


def _phases(metrics: dict[str, Any] | None) -> dict[str, float]:
    """Milliseconds of a step by phase, and of all."""
    return {} if metrics is None else {**metrics["milliseconds_by_phase"], "all": metrics["milliseconds_per_step"]}


if __name__ == "__main__":
    main()

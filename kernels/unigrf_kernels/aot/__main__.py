"""`python -m unigrf_kernels.aot`: compile every shipped configuration of every kernel without a GPU."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .cache import fingerprint
from .measured import is_excused, read_measured
from .model.budgets import over_budget, read_budgets
from .model.measure import read_models, write_models
from .model.run import model_all, select_models
from .model.table import format_models
from .passed import read_passed, write_passed
from .report import format_summary, format_table, to_json
from .run import compile_all, discover_cases, select
from .targets import TARGETS


def _versions() -> dict[str, str]:
    import torch
    import triton

    return {"triton": triton.__version__, "torch": torch.__version__}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if a configuration spills, exceeds the shared memory or misses the tensor cores, else 0."""
    parser = argparse.ArgumentParser(prog="python -m unigrf_kernels.aot", description=__doc__)
    parser.add_argument("--arch", default="sm_80,sm_90,sm_100,gfx942", help="chips, separated by commas")
    parser.add_argument("--only", default="", help="only configurations whose label contains this")
    parser.add_argument("--processes", type=int, default=2, help="compilers that run at a time")
    parser.add_argument("--cache", type=Path, help="folder that keeps reports until their kernel changes")
    parser.add_argument("--passed", type=Path, help="leave out what this file lists as passed")
    parser.add_argument("--measured", type=Path, help="allow the spills that this file lists as timed on a card")
    parser.add_argument("--record", type=Path, help="write the list of what passed to this file, if all did")
    parser.add_argument(
        "--summary",
        action="store_true",
        help="Markdown tables with one line per kernel and dtype, as in kernels/docs/resources.md",
    )
    parser.add_argument("--json", type=Path, help="write the reports to this file")
    parser.add_argument("--model", action="store_true", help="what bounds the main loops, and predicted speeds")
    parser.add_argument("--known", type=Path, help="with --model: file of models, of which none is made again")
    parser.add_argument("--keep", type=Path, help="with --model: write all models to this file")
    parser.add_argument("--budgets", type=Path, help="with --model: file of budgets that no kernel may exceed")
    options = parser.parse_args(arguments)
    archs = options.arch.split(",")
    unknown = sorted(set(archs) - set(TARGETS))
    if options.record and options.only:
        parser.error("--record lists all that passed: leave out --only")
    if unknown:
        parser.error(f"--arch must name {', '.join(TARGETS)}, got {', '.join(unknown)}")

    if options.model:
        return _model(options, archs)
    begin = time.perf_counter()
    passed = read_passed(options.passed) if options.passed else frozenset()
    selected = select(archs, only=options.only, passed=passed)
    reports = compile_all(selected, processes=options.processes, cache=options.cache)
    print(format_summary(reports) if options.summary else format_table(reports))
    measured = read_measured(options.measured) if options.measured else {}
    faulty = [report for report in reports if report.faults and not is_excused(report, measured)]
    if options.summary and faulty:
        print(format_table(faulty), file=sys.stderr)
    seconds = time.perf_counter() - begin
    print(f"{len(reports)} configurations in {seconds:.0f} s, {len(faulty)} with faults")
    if options.record and not faulty:
        # What was passed before stays listed, if it is shipped still.
        cases = [(discover_cases()[number], TARGETS[arch]) for number, arch in select(archs)]
        write_passed(options.record, ((fingerprint(case, target), target, case) for case, target in cases))
    if options.json:
        options.json.write_text(to_json(reports, _versions()), encoding="utf-8")
    return 1 if faulty else 0


def _model(options: argparse.Namespace, archs: Sequence[str]) -> int:
    """Print the model's table; 1 if a kernel exceeds its budget or computes the same numbers twice."""
    known = read_models(options.known) if options.known else {}
    models = model_all(select_models(archs, only=options.only), known=known, processes=options.processes)
    print(format_models(models))
    if options.json:
        document = {"versions": _versions(), "models": [asdict(model) for model in models]}
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    if options.keep:
        write_models(options.keep, models)
    faults = over_budget(models, read_budgets(options.budgets)) if options.budgets else []
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    # The interpreter's functions cannot be compiled.
    os.environ.pop("TRITON_INTERPRET", None)
    sys.exit(main())

"""`python -m unigrf_kernels.aot`: compile every shipped configuration of every kernel without a GPU."""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import pkgutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import unigrf_kernels

from .case import CompileCase
from .compiler import CompileReport, compile_for
from .report import format_table, to_json
from .targets import TARGETS


@lru_cache(maxsize=1)
def discover_cases() -> tuple[CompileCase, ...]:
    """The shipped configurations of all operators, from their modules `aot_cases`."""
    cases: list[CompileCase] = []
    for module in pkgutil.iter_modules(unigrf_kernels.__path__):
        name = f"unigrf_kernels.{module.name}.aot_cases"
        if module.ispkg and importlib.util.find_spec(name) is not None:
            cases.extend(importlib.import_module(name).shipped_configurations())
    return tuple(cases)


def compile_all(archs: Sequence[str], *, only: str = "", processes: int = 2) -> list[CompileReport]:
    """Compile in parallel; the order is that of `discover_cases`, chip by chip.

    Args:
        archs: names from `TARGETS`.
        only: compile only configurations whose label contains this.
        processes: how many compilers run at a time.
    """
    tasks = [
        (number, arch)
        for arch in archs
        for number, case in enumerate(discover_cases())
        if only in case.label and (not case.archs or arch in case.archs)
    ]
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(cache,)) as pool,
    ):
        return list(pool.map(_compile_task, tasks))


def _start(cache: str) -> None:
    # A cache of its own: what comes from an older cache brings no remarks of the assembler.
    os.environ["TRITON_CACHE_DIR"] = cache
    os.environ["TRITON_DUMP_PTXAS_LOG"] = "1"


def _compile_task(task: tuple[int, str]) -> CompileReport:
    number, arch = task
    return compile_for(discover_cases()[number], TARGETS[arch])


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
    parser.add_argument("--json", type=Path, help="write the reports to this file")
    options = parser.parse_args(arguments)
    archs = options.arch.split(",")
    unknown = sorted(set(archs) - set(TARGETS))
    if unknown:
        parser.error(f"--arch must name {', '.join(TARGETS)}, got {', '.join(unknown)}")

    begin = time.perf_counter()
    reports = compile_all(archs, only=options.only, processes=options.processes)
    print(format_table(reports))
    faulty = [report for report in reports if report.faults]
    seconds = time.perf_counter() - begin
    print(f"{len(reports)} configurations compiled in {seconds:.0f} s, {len(faulty)} with faults")
    if options.json:
        options.json.write_text(to_json(reports, _versions()), encoding="utf-8")
    return 1 if faulty else 0


if __name__ == "__main__":
    # The interpreter's functions cannot be compiled.
    os.environ.pop("TRITON_INTERPRET", None)
    sys.exit(main())

"""Find the shipped configurations of all operators and compile them, several at a time."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import unigrf_kernels.aot.cases as operators

from .cache import compile_cached
from .case import CompileCase
from .compiler import CompileReport
from .targets import TARGETS


@lru_cache(maxsize=1)
def discover_cases() -> tuple[CompileCase, ...]:
    """The shipped configurations of all operators, from the modules in `aot/cases`."""
    cases: list[CompileCase] = []
    for module in pkgutil.iter_modules(operators.__path__):
        cases.extend(importlib.import_module(f"{operators.__name__}.{module.name}").shipped_configurations())
    return tuple(cases)


def compile_all(
    archs: Sequence[str], *, only: str = "", processes: int = 2, cache: Path | None = None
) -> list[CompileReport]:
    """Compile in parallel; the order is that of `discover_cases`, chip by chip.

    Args:
        archs: names from `TARGETS`.
        only: compile only configurations whose label contains this.
        processes: how many compilers run at a time.
        cache: folder of reports of earlier runs; what has changed since is compiled again.
    """
    tasks = [
        (number, arch, cache)
        for arch in archs
        for number, case in enumerate(discover_cases())
        if only in case.label and (not case.archs or arch in case.archs)
    ]
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as compiled,
        ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(compiled,)) as pool,
    ):
        return list(pool.map(_compile_task, tasks))


def _start(compiled: str) -> None:
    # A folder of its own: what Triton kept of an older run brings no remarks of the assembler.
    os.environ["TRITON_CACHE_DIR"] = compiled
    os.environ["TRITON_DUMP_PTXAS_LOG"] = "1"


def _compile_task(task: tuple[int, str, Path | None]) -> CompileReport:
    number, arch, cache = task
    return compile_cached(discover_cases()[number], TARGETS[arch], cache)

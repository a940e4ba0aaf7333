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

from .cache import compile_cached, fingerprint
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


def select(archs: Sequence[str], *, only: str = "", passed: frozenset[str] = frozenset()) -> list[tuple[int, str]]:
    """Number of a case in `discover_cases` and name of the chip, of all that is to be compiled, chip by chip.

    Args:
        archs: names from `TARGETS`.
        only: only configurations whose label contains this.
        passed: digests of configurations to leave out.
    """
    return [
        (number, arch)
        for arch in archs
        for number, case in enumerate(discover_cases())
        if only in case.label
        and (not case.archs or arch in case.archs)
        and (not passed or fingerprint(case, TARGETS[arch]) not in passed)
    ]


def compile_all(
    selected: Sequence[tuple[int, str]], *, processes: int = 2, cache: Path | None = None
) -> list[CompileReport]:
    """Compile what `select` found, in parallel; the reports are in its order.

    Args:
        selected: number of a case and name of the chip.
        processes: how many compilers run at a time.
        cache: folder of reports of earlier runs; what has changed since is compiled again.
    """
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as compiled,
        ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(compiled,)) as pool,
    ):
        return list(pool.map(_compile_task, [(number, arch, cache) for number, arch in selected]))


def _start(compiled: str) -> None:
    # A folder of its own: what Triton kept of an older run brings no remarks of the assembler.
    os.environ["TRITON_CACHE_DIR"] = compiled
    os.environ["TRITON_DUMP_PTXAS_LOG"] = "1"


def _compile_task(task: tuple[int, str, Path | None]) -> CompileReport:
    number, arch, cache = task
    return compile_cached(discover_cases()[number], TARGETS[arch], cache)

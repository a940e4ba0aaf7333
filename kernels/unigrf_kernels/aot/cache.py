"""Reports of earlier runs, kept on disk under everything that they depend on."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from . import assembly, compiler
from .case import CompileCase
from .compiler import CompileReport, compile_for
from .targets import Target


def compile_cached(case: CompileCase, target: Target, folder: Path | None) -> CompileReport:
    """`compile_for`, or its report from ``folder`` if nothing that it depends on has changed since."""
    if folder is None:
        return compile_for(case, target)
    path = folder / f"{fingerprint(case, target)}.json"
    if path.exists():
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        return replace(CompileReport(**fields), label=case.label)
    report = compile_for(case, target)
    if not report.registers:  # did not compile, perhaps for want of memory: worth another try
        return report
    folder.mkdir(parents=True, exist_ok=True)
    # Another process may write the same report: readers must never see half of it.
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(asdict(report)), encoding="utf-8")
    partial.replace(path)
    return report


def fingerprint(case: CompileCase, target: Target) -> str:
    """Digest of the files that the kernel is written in, its arguments, the chip, Triton and the checker."""
    import triton

    parts = (
        case.kernel.__name__,
        _digest(*_sources(Path(inspect.getfile(case.kernel.fn)))),
        sorted(case.signature.items()),
        sorted((name, repr(value)) for name, value in case.constexprs.items()),
        sorted(case.divisible_by_16),
        (case.num_warps, case.num_stages, case.expects_tensor_cores),
        target,
        triton.__version__,
        _digest(Path(assembly.__file__), Path(compiler.__file__)),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


@cache
def _sources(file: Path) -> frozenset[Path]:
    """``file`` and the files of this package that it imports from, and they from others.

    Triton's own key of a kernel would be finer, but it depends on which kernels were compiled before.
    """
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for node in ast.walk(ast.parse(current.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = current.parents[node.level - 1]
                target = folder.joinpath(*(node.module or "").split("."))
                candidates = [target.with_suffix(".py"), *(target / f"{name.name}.py" for name in node.names)]
                waiting += [path for path in candidates if path.is_file()]
    return frozenset(found)

"""Configurations that have passed: a file under version control, so that a checkout compiles only what changed.

A line is the digest of all that a report depends on (`cache.fingerprint`), the chip and the label. A changed
kernel, tile, checker or Triton has another digest, which stands in no line, and is compiled.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .case import CompileCase
from .targets import Target


def read_passed(file: Path) -> frozenset[str]:
    """Digests of the configurations in ``file``; the label beside each is for the reader of a change."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return frozenset(line.split()[0] for line in lines if line and not line.startswith("#"))


def write_passed(file: Path, passed: Iterable[tuple[str, Target, CompileCase]]) -> None:
    """Write ``passed`` (digest, chip, configuration) to ``file``, which holds nothing else afterwards."""
    # Configurations that differ by their labels alone have one digest.
    lines = {digest: f"{digest} {target.name} {case.label}\n" for digest, target, case in passed}
    header = "# Configurations that passed `python -m unigrf_kernels.aot`; written by its option --record.\n"
    by_name = sorted(lines.values(), key=lambda line: line.split(" ", 1)[1])
    file.write_text(header + "".join(by_name), encoding="utf-8")

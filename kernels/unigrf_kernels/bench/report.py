"""The results as a plain text table and as JSON."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .ceilings import Ceilings
from .task import Result

HEADINGS = (
    "operator", "shape", "implementation", "phase", "ms", "10-90 %", "TFLOP/s", "GB/s", "of ceiling", "host ms",
    "peak MiB",
)  # fmt: skip


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else _processor(),
        "device_type": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device_state": [device_state(device)],
    }


_STATE = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)


def device_state(device: torch.device) -> dict[str, str]:
    """Clocks, power and temperature as ``nvidia-smi`` names them now; empty on a CPU or without that program."""
    if device.type != "cuda":
        return {}
    index = torch.cuda.current_device() if device.index is None else device.index
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(_STATE)}", "--format=csv,noheader"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(_STATE, (value.strip() for value in line.split(",")), strict=False))


def heading(environment: dict[str, Any], ceilings: Ceilings) -> str:
    """Two lines above the table."""
    where = environment["device"]
    if environment["device_type"] == "cpu":
        where += f" (CPU path, {environment['threads']} threads; says nothing about a GPU)"
    return (
        f"{where}, torch {environment['torch']}, triton {environment['triton']}, "
        f"commit {environment['commit'] or 'unknown'}\n"
        f"ceilings: {ceilings.tflops:.3g} TFLOP/s ({ceilings.dtype} GEMM of {ceilings.gemm_size}), "
        f"{ceilings.gb_per_second:.3g} GB/s (copy of {ceilings.copy_bytes >> 20} MiB)"
    )


def row(result: Result) -> tuple[str, ...]:
    """The cells of one line; what was not timed shows its reason instead."""
    names = (result.operator, result.shape, result.implementation, result.phase)
    if result.refusal:
        return (*names, f"not timed: {result.refusal}")
    low, high = (seconds * 1e3 for seconds in result.spread_seconds)
    return (
        *names,
        f"{result.median_seconds * 1e3:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{result.tflops:.3g}" if result.tflops else "",
        f"{result.gb_per_second:.3g}",
        f"{result.fraction:.1%}",
        f"{result.host_seconds * 1e3:.3f}",
        f"{result.peak_bytes / 2**20:.1f}",
    )


def format_table(results: Sequence[Result]) -> str:
    """Aligned columns; a reason runs to the end of its line."""
    rows = [HEADINGS, *(row(result) for result in results)]
    full = [cells for cells in rows if len(cells) == len(HEADINGS)]
    widths = [max(len(cells[column]) for cells in full) for column in range(len(HEADINGS))]
    for cells in rows:
        widths[:4] = [max(width, len(cell)) for width, cell in zip(widths[:4], cells[:4], strict=True)]
    return "\n".join(_line(cells, widths) for cells in rows)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    names = [cell.ljust(width) for cell, width in zip(cells[:4], widths, strict=False)]
    if len(cells) < len(widths):
        return "  ".join([*names, cells[4]])
    numbers = [cell.rjust(width) for cell, width in zip(cells[4:], widths[4:], strict=True)]
    return "  ".join([*names, *numbers]).rstrip()


def to_json(results: Sequence[Result], environment: dict[str, Any], ceilings: Ceilings) -> str:
    """Everything that a table of a document is generated from."""
    document = {
        "environment": environment,
        "ceilings": asdict(ceilings),
        "results": [asdict(result) for result in results],
    }
    return json.dumps(document, indent=1)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the repository that this file lies in, marked if files were changed; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

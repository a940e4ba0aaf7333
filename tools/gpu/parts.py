"""The parts of a session, the most valuable first, and how long each may take."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

_PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
_KERNELS = "tests/kernels"
_TELLING = [
    f"{_KERNELS}/jagged_attention/test_triton.py::test_low_precision",
    f"{_KERNELS}/jagged_attention/test_last_tokens.py",
    f"{_KERNELS}/joint_loss/test_triton_kernels.py::test_half_precision",
    f"{_KERNELS}/hstu_layer",
    f"{_KERNELS}/llama_layer",
    f"{_KERNELS}/dropout",
]
_SMALLEST = f"{_KERNELS}/jagged_attention/test_triton.py::test_forward_and_gradients[one-token]"
_BF16 = "deepspeed.bf16={enabled: true}"
_WIDE = ["model.width=512", "model.blocks=4", "model.heads=4", "model.head_width=128", _BF16]
_SMALL = ["model.width=32", "model.blocks=4", "model.heads=2", "model.head_width=16", _BF16]


@dataclass(frozen=True)
class Part:
    """One step of the session, a command of its own: it fails alone.

    Attributes:
        name: name in the table.
        command: what is run, in the repository's root.
        seconds: after so long it is stopped.
        result: JSON file that it leaves, whose content goes into the session's.
        skip: why it cannot run here; it is then not run.
    """

    name: str
    command: list[str]
    seconds: int
    result: Path | None = None
    skip: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def parts(out: Path, *, rehearsal: bool) -> list[Part]:
    """All parts in order; a rehearsal runs the same commands at their smallest, interpreted and on the CPU."""
    sanitizer = shutil.which("compute-sanitizer")
    bench, demo, wide = out / "bench.json", out / "demo.json", out / "wide.json"
    telling = [f"{_KERNELS}/jagged_attention/test_last_tokens.py::test_triton"] if rehearsal else _TELLING
    every = [f"{_KERNELS}/test_launching.py"] if rehearsal else [_KERNELS, f"--ignore={_KERNELS}/test_aot.py"]
    budget = ["--budget", "95", "--seconds", "0.2"]
    if rehearsal:
        budget = ["--budget", "60", "--seconds", "0", "--op", "dropout", "--shapes", "27000"]
    steps = ["--steps", "2" if rehearsal else "20"]
    # A first run compiles its kernels; a rehearsal shares two slow cores.
    patience = 300 if rehearsal else 80
    training = [sys.executable, "-m", "tools.gpu.profiled_training", "--config", "configs/demo.yaml", *steps]
    return [
        Part("data", [sys.executable, "-m", "tools.gpu.demo_data"], 30),
        Part("tests, telling", [*_PYTEST, *telling], 80),
        Part("tests, all", [*_PYTEST, *every], 100),
        Part(
            "compute-sanitizer",
            [sanitizer or "compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "1", *_PYTEST, _SMALLEST],
            40,
            skip="" if sanitizer else "compute-sanitizer is not installed",
        ),
        Part(
            "benchmark", [sys.executable, "-m", "unigrf_kernels.bench", *budget, "--json", str(bench)], 120, bench
        ),
        Part("training, demo", [*training, "--out", str(demo)], patience, demo),
        Part(
            "training, 4 blocks of 512 in bf16",
            [*training, "--out", str(wide), *_set(_SMALL if rehearsal else _WIDE)],
            patience,
            wide,
        ),
    ]


def _set(overrides: list[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]

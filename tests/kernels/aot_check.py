"""Hopper's AOT resource check as a process of its own, which compiles beside the tests before it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class AotCheck:
    """`python -m unigrf_kernels.aot --arch sm_90` with the lowest priority; reports are kept in build/aot."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment["PYTHONPATH"] = str(ROOT / "kernels")
        program = [sys.executable, "-m", "unigrf_kernels.aot"]
        self._process = subprocess.Popen(
            ["nice", "-n", "19", *program, "--arch", "sm_90", "--cache", str(ROOT / "build" / "aot")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def outcome(self) -> tuple[int, str]:
        """Exit status and output, once all is compiled."""
        output, _ = self._process.communicate()
        return self._process.returncode, output

    def stop(self) -> None:
        """End it and its compilers, if they still run."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

"""Starts rank programs on this machine: alone, or under the deepspeed launcher.

For several hosts the launcher is called directly, see ``launchers/``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

from unigrf_dist.ranks.orphan import LAUNCHER_VARIABLE, identity
from unigrf_dist.ranks.runtime import free_port


def launch(module: str, arguments: list[str], *, ranks: int) -> int:
    """Run ``python -m module arguments`` on ``ranks`` ranks and return the exit status.

    From here on this process only waits. The ranks have a session of their own, so that a terminal's Ctrl-C
    reaches this process alone: it asks the ranks to stop, once; a second Ctrl-C ends them at once. SIGTERM asks
    them to stop. Should this process be killed, the ranks end too.

    Args:
        module: module of the rank program.
        arguments: command line of the rank program.
        ranks: processes on this machine; one runs without the deepspeed launcher.
    """
    command = [sys.executable, "-m", module] if ranks == 1 else _deepspeed(module, ranks)
    process = subprocess.Popen([*command, *arguments], env=_environment(ranks), start_new_session=True)
    stopper = _Stopper(process)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopper)
    status = process.wait()
    return _KILLED if stopper.killed else status


_KILLED = 130  # what a shell reports of a program ended by Ctrl-C


def repeated(option: str, values: Sequence[str]) -> list[str]:
    """Arguments that give ``option`` once for each value."""
    return [word for value in values for word in (option, value)]


class _Stopper:
    """Asks the ranks to stop at the first signal; at a second SIGINT ends them."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._interrupts = process, 0
        self.killed = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self.killed = True
            for process in _below(self._process):
                process.kill()
            self._process.kill()
            return
        ranks = [process for process in _below(self._process) if _is_rank(process)]
        # Only the ranks: the deepspeed launcher would end them before they have saved.
        for rank in ranks:
            rank.send_signal(signal.SIGTERM)
        if not ranks:
            self._process.send_signal(signal.SIGTERM)


def _below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_rank(process: psutil.Process) -> bool:
    try:
        return any(word.startswith("--local_rank") for word in process.cmdline())
    except psutil.Error:
        return False


def _deepspeed(module: str, ranks: int) -> list[str]:
    launcher = Path(sys.executable).with_name("deepspeed")
    address = ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    return [
        sys.executable,
        str(launcher),
        # A rank that was asked to stop ends with a status; the launcher would call that an error.
        "--log_level",
        "critical",
        "--num_gpus",
        str(ranks),
        *address,
        "--module",
        module,
    ]


def _environment(ranks: int) -> dict[str, str]:
    import torch

    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    environment[LAUNCHER_VARIABLE] = identity(os.getpid())
    # Ranks share the cores; more threads than cores make all of them slower.
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    if not torch.cuda.is_available():
        environment.setdefault("DS_ACCELERATOR", "cpu")
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return environment

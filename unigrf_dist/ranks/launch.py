"""Starts rank programs on this machine: alone, or under the deepspeed launcher; again, if some were lost.

For several hosts the launcher is called directly, see ``launchers/``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil

from unigrf_dist.ranks.lost import LostRanks, children, ranks_below
from unigrf_dist.ranks.orphan import LAUNCHER_VARIABLE, identity
from unigrf_dist.ranks.runtime import free_port

_KILLED = 130  # what a shell reports of a program ended by Ctrl-C
# Ends that another try would not change: done, a user's error, asked to stop.
_FINAL = (0, 2, _KILLED)
_POLL_SECONDS = 0.2


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
    return _Attempt(module, arguments, ranks).status


def launch_again(
    module: str,
    arguments: Callable[[bool], list[str]],
    *,
    ranks: int,
    max_restarts: int,
    elastic: bool,
    announce: Callable[[str], None],
) -> int:
    """``launch``, and again from where it stood while ranks are lost.

    Args:
        module: module of the rank program.
        arguments: command line of an attempt, told whether it follows on an earlier one.
        ranks: processes of the first attempt.
        max_restarts: further attempts.
        elastic: leave out as many ranks as were lost.
        announce: told of each restart.

    Returns:
        Exit status of the last attempt.
    """
    for restart in range(max_restarts + 1):
        attempt = _Attempt(module, arguments(restart > 0), ranks)
        if attempt.status in _FINAL or restart == max_restarts:
            break
        if elastic:
            ranks = max(1, ranks - attempt.lost)
        announce(
            f"ended with status {attempt.status}, {attempt.lost or 'no'} rank(s) lost; "
            f"restart {restart + 1} of {max_restarts} on {ranks} rank(s)"
        )
    return attempt.status


def repeated(option: str, values: Sequence[str]) -> list[str]:
    """Arguments that give ``option`` once for each value."""
    return [word for value in values for word in (option, value)]


class _Attempt:
    """Ranks from their start to their end.

    Attributes:
        status: exit status.
        lost: how many ranks ended before the others were made to.
    """

    def __init__(self, module: str, arguments: list[str], ranks: int) -> None:
        command = [sys.executable, "-m", module] if ranks == 1 else _deepspeed(module, ranks)
        process = subprocess.Popen([*command, *arguments], env=_environment(ranks), start_new_session=True)
        stopper, lost = _Stopper(process), LostRanks(process.pid)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stopper)
        while (status := _wait(process)) is None:
            lost.look()
        self.status = _KILLED if stopper.killed else status
        self.lost = lost.number or int(ranks == 1 and status != 0)


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


class _Stopper:
    """Asks the ranks to stop at the first signal; at a second SIGINT ends them."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._interrupts = process, 0
        self.killed = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self.killed = True
            for process in children(self._process.pid):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.kill()
            return
        # Only the ranks: the deepspeed launcher would end them before they have saved.
        ranks = [process.pid for process in ranks_below(self._process.pid)]
        for pid in ranks or [self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


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

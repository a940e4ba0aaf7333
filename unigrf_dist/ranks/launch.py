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

from unigrf_dist.ranks.runtime import free_port


def launch(module: str, arguments: list[str], *, ranks: int) -> int:
    """Run ``python -m module arguments`` on ``ranks`` ranks and return the exit status.

    From here on this process only waits: it passes SIGTERM on and leaves Ctrl-C to the ranks.

    Args:
        module: module of the rank program.
        arguments: command line of the rank program.
        ranks: processes on this machine; one runs without the deepspeed launcher.
    """
    command = [sys.executable, "-m", module] if ranks == 1 else _deepspeed(module, ranks)
    process = subprocess.Popen([*command, *arguments], env=_environment(ranks))
    # Ctrl-C reaches the whole foreground group by itself. SIGTERM comes to this process alone: hand it to
    # the ranks too, which save and stop.
    signal.signal(signal.SIGTERM, lambda number, frame: _forward(process))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return process.wait()


def repeated(option: str, values: Sequence[str]) -> list[str]:
    """Arguments that give ``option`` once for each value."""
    return [word for value in values for word in (option, value)]


def _deepspeed(module: str, ranks: int) -> list[str]:
    launcher = Path(sys.executable).with_name("deepspeed")
    address = ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    return [
        sys.executable,
        str(launcher),
        "--log_level",
        "error",
        "--num_gpus",
        str(ranks),
        *address,
        "--module",
        module,
    ]


def _environment(ranks: int) -> dict[str, str]:
    import torch

    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    # Ranks share the cores; more threads than cores make all of them slower.
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    if not torch.cuda.is_available():
        environment.setdefault("DS_ACCELERATOR", "cpu")
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return environment


def _forward(process: subprocess.Popen[bytes]) -> None:
    import psutil

    # Only the ranks: the launcher has no handler and would end before they have saved.
    alone = psutil.Process(process.pid)
    below = alone.children(recursive=True)
    ranks = [child for child in below if any(word.startswith("--local_rank") for word in child.cmdline())]
    for rank in ranks or [alone]:
        rank.send_signal(signal.SIGTERM)

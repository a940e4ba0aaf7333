"""Runs the probes and turns their outcomes into findings."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from unigrf_dist.doctor.check import Check, fail, note, ok
from unigrf_dist.doctor.compilers import extension_folder

# DeepSpeed compiles an operator at its first start, which took three minutes on two busy cores.
_TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Outcome:
    """Outcome of a probe.

    Attributes:
        worked: whether its process succeeded.
        text: last line of its output, or of its errors if it failed.
    """

    worked: bool
    text: str


_FIXES = {
    "gloo": "export GLOO_SOCKET_IFNAME=lo (one host), or the interface between the hosts, such as eth0",
    "nccl": "make clean setup DEVICE=cuda (NCCL_DEBUG=INFO shows what it tried)",
    "deepspeed": f"fix the compilers above, then: rm -rf {extension_folder()} && unigrf doctor",
    "fbgemm": "make clean setup",
    "triton": "make clean setup",
}
_WHERE = {
    "gloo": ("Collectives", "gloo"),
    "nccl": ("Collectives", "nccl"),
    "deepspeed": ("Libraries", "deepspeed"),
    "fbgemm": ("Libraries", "fbgemm, torchrec"),
    "triton": ("Libraries", "triton"),
}


def check_device() -> tuple[Check, bool]:
    """The accelerator that training will use, and whether that is CUDA."""
    outcome = run_probe("devices")
    if not outcome.worked:
        return fail("Machine", "torch", outcome.text, "make clean setup"), False
    if outcome.text:
        return ok("Machine", "accelerator", outcome.text), True
    if _smi_lists_a_gpu():
        fix = "make clean setup DEVICE=cuda (if it is that already: a newer driver)"
        return note("Machine", "accelerator", "nvidia-smi lists a GPU that torch can't use", fix), False
    return ok("Machine", "accelerator", "no GPU: training runs on the CPU with gloo"), False


def check_libraries(*, on_cuda: bool) -> list[Check]:
    """Collectives, DeepSpeed, FBGEMM and Triton, each by its probe."""
    names = ["gloo", *(["nccl"] if on_cuda else []), "deepspeed", "fbgemm", "triton"]
    # Two at a time: each imports torch, which keeps a core busy for seconds.
    with ThreadPoolExecutor(max_workers=2) as pool:
        outcomes = list(pool.map(run_probe, names))
    return [
        ok(*_WHERE[name], outcome.text) if outcome.worked else fail(*_WHERE[name], outcome.text, _FIXES[name])
        for name, outcome in zip(names, outcomes, strict=True)
    ]


def run_probe(name: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> Outcome:
    """Run one probe in a process of its own and wait for it, at most ``timeout_seconds``."""
    command = [sys.executable, "-W", "ignore", "-m", "unigrf_dist.doctor.probes", name]
    # A session of its own, so that compilers it has started can be killed with it.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        said = _last_line(output) or _last_line(errors)
        return Outcome(
            False, f"no answer within {timeout_seconds:.0f} s" + (f"; it said last: {said}" if said else "")
        )
    if process.returncode:
        return Outcome(False, _last_line(errors) or f"its process ended with status {process.returncode}")
    return Outcome(True, output.removesuffix("\n").rpartition("\n")[2])


def _smi_lists_a_gpu() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listing.stdout.startswith("GPU")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")

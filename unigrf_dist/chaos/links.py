"""A link between two hosts that is cut: each a network namespace of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from unigrf_dist.chaos.hosts import Host, cut, namespaces_allowed, rejoin, two_hosts
from unigrf_dist.chaos.training import CHECKPOINT_STEPS, log_of
from unigrf_dist.chaos.weights import is_equal, weights_at
from unigrf_dist.chaos.workshop import Outcome, Workshop
from unigrf_dist.errors import UserError

_TIMEOUT_SECONDS = 30
_START_SECONDS = 300.0
_FAULT = "cut link between two hosts"


def cut_link(work: Workshop) -> Outcome:
    """The cable is cut while both hosts train: both end in time and name the other; a resume is bit-equal."""
    if not namespaces_allowed():
        raise UserError("two hosts on one machine need root and network namespaces: leave out the fault cut-link")
    run = work.new_run()
    work.reference()
    with two_hosts() as hosts:
        ranks = [_HostRank(work, host, number, run, resume=False) for number, host in enumerate(hosts)]
        _wait_for_step(run, ranks, CHECKPOINT_STEPS + work.draws.randint(2, CHECKPOINT_STEPS))
        cut(hosts[0])
        began = time.monotonic()
        ended = [rank.wait(_TIMEOUT_SECONDS + 40) for rank in ranks]
        seconds = time.monotonic() - began
        said = [rank.error() for rank in ranks]
        named = all(f"rank {1 - number}" in line for number, line in enumerate(said))
        if not all(ended) or not named:
            return Outcome(_FAULT, False, seconds, " | ".join(said))
        rejoin(hosts[0])
        again = [_HostRank(work, host, number, run, resume=True) for number, host in enumerate(hosts)]
        statuses = [rank.wait(_START_SECONDS) for rank in again]
    equal = statuses == [0, 0] and is_equal(work.reference(), weights_at(run))
    told = f"both ended ({said[0][:90]} …); resumed, {'bit-equal' if equal else f'but with {statuses}'}"
    return Outcome(_FAULT, equal, seconds, told, promised_seconds=_TIMEOUT_SECONDS + 10)


class _HostRank:
    """The one rank of a host, under the deepspeed launcher without ssh."""

    def __init__(self, work: Workshop, host: Host, number: int, run: Path, *, resume: bool) -> None:
        hostfile = work.folder / "hosts"
        hostfile.write_text("10.77.0.1 slots=1\n10.77.0.2 slots=1\n", encoding="utf-8")
        self.output = run.with_suffix(f".host-{number}.{time.monotonic_ns()}.out")
        launcher = [sys.executable, str(Path(sys.executable).with_name("deepspeed")), "--log_level", "critical"]
        place = ["--hostfile", str(hostfile), "--no_ssh", "--node_rank", str(number), "--master_addr", "10.77.0.1"]
        training = ["--module", "unigrf_dist.train", "--config", str(work.config), "--run", str(run)]
        options = ["--set", f"train.timeout_seconds={_TIMEOUT_SECONDS}", *(["--resume"] if resume else [])]
        allowed = ["--allow-change", "train.timeout_seconds"] if resume else []
        environment = {"GLOO_SOCKET_IFNAME": host.interface, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        with self.output.open("w") as output:
            self._process = subprocess.Popen(
                [*host.enter, *launcher, *place, *training, *options, *allowed],
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float) -> int:
        """Exit status; that of a kill where it does not end within ``seconds``."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            return self._process.wait()

    def error(self) -> str:
        """The rank's own line of error."""
        lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in lines if "error: " in line), (lines or ["nothing"])[-1])


def _wait_for_step(run: Path, ranks: list[_HostRank], step: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while max((record["step"] for record in log_of(run) if record["kind"] == "step"), default=0) < step:
        if time.monotonic() > deadline or not all(rank.is_running() for rank in ranks):
            raise RuntimeError(
                f"{run}: ended or hangs before step {step}: {ranks[0].error()} | {ranks[1].error()}"
            )
        time.sleep(0.02)

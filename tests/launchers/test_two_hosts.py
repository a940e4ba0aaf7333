"""Two hosts train together, started by launchers/hostfile.sh on each of them without ssh."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.launchers.shell import ROOT
from tests.train.stored import latest, stored_state
from unigrf_dist.chaos.hosts import Host, namespaces_allowed, two_hosts

pytestmark = pytest.mark.skipif(
    not namespaces_allowed(), reason="needs root and network namespaces, to have two hosts on one machine"
)
CONFIG = """
data: {path: DATA, max_events: 8}
model: {width: 8, blocks: 1, heads: 1, head_width: 8}
objective:
  ranking: [{rule: rating >= 4}]
train: {global_batch_users: 32, epochs: 1, log_every_steps: 1, timeout_seconds: 240}
deepspeed:
  zero_optimization: {stage: 2}
  optimizer: {type: AdamW, params: {lr: 1.0e-3}}
"""


def train_on(host: Host, rank: int, folder: Path) -> subprocess.Popen[str]:
    """One host's launcher, as a person would start it there."""
    settings = {"HOSTFILE": str(folder / "hosts"), "NODE_RANK": str(rank), "GLOO_SOCKET_IFNAME": host.interface}
    words = [f"{name}={value}" for name, value in settings.items()]
    arguments = ["--config", str(folder / "config.yaml"), "--run", str(folder / "run")]
    return subprocess.Popen(
        [*host.enter, "env", *words, "launchers/hostfile.sh", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end_all_of(launcher: subprocess.Popen[str]) -> None:
    """End the launcher's ranks too, should they still run."""
    with suppress(ProcessLookupError):
        os.killpg(launcher.pid, signal.SIGKILL)


def test_two_hosts_train_one_model(tmp_path: Path) -> None:
    from unigrf_dist.synthetic import synthesize

    synthesize(tmp_path / "data", num_users=128, num_items=64, mean_length=10.0, seed=0)
    (tmp_path / "config.yaml").write_text(CONFIG.replace("DATA", str(tmp_path / "data")))
    with two_hosts() as hosts:
        (tmp_path / "hosts").write_text("".join(f"{host.address} slots=1\n" for host in hosts))
        processes = [train_on(host, rank, tmp_path) for rank, host in enumerate(hosts)]
        try:
            outputs = [process.communicate(timeout=400)[0] for process in processes]
        finally:
            for process in processes:
                end_all_of(process)
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    # 128 users in batches of 32, counted over both hosts together, each of which wrote its part.
    assert stored_state(latest(tmp_path / "run"))["step"] == 4
    assert len(list(latest(tmp_path / "run").glob("rank-*.safetensors"))) == 2

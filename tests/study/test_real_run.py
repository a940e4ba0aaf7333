"""One study of real trainings: interrupted in the middle of one, and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.study.conftest import ABLATION, ROOT
from tests.train.stored import latest, stored_state


def test_sigterm_in_the_middle_of_a_training_saves_it_and_the_same_command_finishes(folder: Path) -> None:
    (folder / "study.yaml").write_text(yaml.safe_dump({**ABLATION, "seeds": [1]}))
    arguments = ["--config", str(folder / "study.yaml"), "--out", str(folder / "out"), "--only", "naive"]
    # Long enough that it can't end by itself before it is stopped.
    arguments += ["--set", "train.epochs=40", "--set", "train.selection={every: 40 epochs}"]
    command = [
        sys.executable,
        "-m",
        "unigrf_dist",
        "ablate",
        *arguments,
        "--set",
        "train.checkpoint_every=40 epochs",
    ]
    run = folder / "out" / "runs" / "naive" / "seed-1"
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    log, deadline = run / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and '"step"' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    at = stored_state(latest(run))["step"]
    assert 1 <= at < 200  # 150 users in batches of 32, 40 epochs
    assert _children_of(folder) == []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    headers = [record for record in map(json.loads, log.read_text().splitlines()) if record["kind"] == "header"]
    assert [header["resumed_at_step"] for header in headers] == [0, at]
    (metrics,) = json.loads((folder / "out" / "results.json").read_text())["runs"]
    assert (metrics["steps"], metrics["best_epoch"]) == (200, 40)
    assert 0 < metrics["test"]["hr@10"] <= 1


def _children_of(folder: Path) -> list[str]:
    """Command lines of processes that still work in ``folder``."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has just ended
            continue
        if str(folder) in words and place.parent.name != str(os.getpid()):
            found.append(words)
    return found

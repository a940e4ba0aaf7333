"""Runs a launcher with stand-ins for the programs of a cluster, and reads the commands it would start."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy_launchers(folder: Path) -> Path:
    """A repository that holds nothing but the launchers: no ``.venv`` whose programs would go first."""
    shutil.copytree(ROOT / "launchers", folder / "launchers")
    return folder


def stand_in(folder: Path, name: str, script: str) -> None:
    """Put a program of our own into ``folder``, which goes first on PATH in :func:`start`."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)


def start(
    command: list[str], *, programs: Path, dry_run: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with nothing of the caller's environment but PATH, from the copied repository."""
    variables = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(programs.parent),
        "DRY_RUN": str(int(dry_run)),
        **environment,
    }
    return subprocess.run(
        command, env=variables, cwd=programs.parent, capture_output=True, text=True, timeout=180, check=False
    )


def shown(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """The words of every command that a dry run showed."""
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def option(words: list[str], name: str) -> str:
    """The value of a launcher's option, which stands before the training's own arguments."""
    launcher = words[: words.index("--module")]
    return launcher[launcher.index(name) + 1]

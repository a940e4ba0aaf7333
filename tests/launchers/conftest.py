"""A repository with the launchers, on a machine of which nothing depends on the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launchers.shell import copy_launchers, stand_in


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Folder of stand-ins: no GPU, four cores, and host names that lead to an address of the network."""
    folder = copy_launchers(tmp_path) / "programs"
    stand_in(folder, "nvidia-smi", "exit 9")
    stand_in(folder, "nproc", "echo 4")
    stand_in(folder, "getent", 'echo "192.0.2.7 STREAM $2"')
    return folder

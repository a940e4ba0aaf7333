"""What every test runs under: one thread, a chosen Triton, one compile cache, repeatable examples."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch: OpenMP reads it once. Ranks and test files share few cores, so more threads only slow them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
# A compiled function is the same whoever asks for it; without a shared folder every rank would compile it again.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / "build" / "inductor"))

import hypothesis  # noqa: E402 - the environment above must be set before torch is imported
import pytest  # noqa: E402
import torch  # noqa: E402

from unigrf_dist.ranks.environment import put_own_programs_first  # noqa: E402

put_own_programs_first()
torch.set_num_threads(1)

if not torch.cuda.is_available():
    # Triton reads the first when a kernel is defined, DeepSpeed the second when it is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

# No deadline: the first example of a compiled function takes seconds, the others microseconds.
_SLOW_IS_FINE = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("local", **_SLOW_IS_FINE)
hypothesis.settings.register_profile("ci", derandomize=True, **_SLOW_IS_FINE)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


# A worker holds torch, TorchRec and a server that ranks are taken from: 1 GB.
_MOST_WORKERS = 8


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: one worker on each core that this process may use."""
    return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is no accelerator, and say so in the summary."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the public data sets: ``UNIGRF_SHARED_DATA``, else ``../shared/data`` beside the repository."""
    folder = Path(os.environ.get("UNIGRF_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}; set UNIGRF_SHARED_DATA to the folder that holds ml-1m")
    return folder

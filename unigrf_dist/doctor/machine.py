"""Cores, memory, disk and shared memory of this machine, or of the container around this process."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from unigrf_dist.doctor.check import Check, fail, note, ok

GROUP = "Machine"
GIB = 2**30
MIB = 2**20
# Measured to suffice for the demo on two ranks; real data sets need more.
_MEMORY_BYTES = 4 * GIB
_DISK_BYTES = 2 * GIB
# DeepSpeed's all-reduce between the CPU ranks of one host takes 66 MiB of shared memory per rank.
_SHARED_BYTES_PER_RANK = 70 * MIB
_SHARED_BYTES = GIB
_SHARED = Path("/dev/shm")
_BUFFERS = "deepspeed_allreduce_buffer_"


def check_machine() -> list[Check]:
    """Cores, memory, disk, shared memory, and shared buffers that nobody uses any more."""
    return [_cores(), _memory(), _disk(Path.cwd()), _shared_memory(), *_left_buffers()]


def _cores() -> Check:
    return ok(GROUP, "cores", f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}")


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    total = min(memory.total, _container_limit() or memory.total)
    found = f"{total / GIB:.1f} GiB, {min(memory.available, total) / GIB:.1f} free"
    if total < _MEMORY_BYTES:
        return note(GROUP, "memory", found, "give the container or machine 4 GiB or more")
    return ok(GROUP, "memory", found)


def _container_limit() -> int | None:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        path = Path("/sys/fs/cgroup") / name
        if path.exists() and (text := path.read_text().strip()).isdigit():
            return int(text)
    return None


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free in {folder}"
    if free < _DISK_BYTES:
        return note(GROUP, "disk", found, "make room, or keep runs and data on another disk (--run, --out)")
    return ok(GROUP, "disk", found)


def _shared_memory() -> Check:
    name = str(_SHARED)
    fix = "start the container with --shm-size=8g (Kubernetes: an emptyDir of medium Memory at /dev/shm)"
    if not _SHARED.is_dir():
        return fail(GROUP, name, "does not exist", fix)
    free = shutil.disk_usage(_SHARED).free
    found = f"{free / GIB:.2f} GiB free"
    if free < _SHARED_BYTES_PER_RANK:
        return fail(GROUP, name, f"{found}, a rank takes {_SHARED_BYTES_PER_RANK // MIB} MiB", fix)
    if free < _SHARED_BYTES:
        return note(GROUP, name, f"{found}, a rank takes {_SHARED_BYTES_PER_RANK // MIB} MiB", fix)
    return ok(GROUP, name, found)


def _left_buffers() -> list[Check]:
    """Shared buffers of ended ranks, which occupy memory until someone removes them."""
    mapped = _mapped_buffers()
    left = [path for path in sorted(_SHARED.glob(_BUFFERS + f"{os.getuid()}_*")) if str(path) not in mapped]
    if not left:
        return []
    size = sum(path.stat().st_size for path in left)
    found = f"{len(left)} DeepSpeed buffers of ended ranks hold {size / MIB:.0f} MiB of {_SHARED}"
    return [note(GROUP, "left buffers", found, "rm " + " ".join(str(path) for path in left))]


def _mapped_buffers() -> set[str]:
    mapped: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text().splitlines()
        except OSError:  # another user's process, or one that has just ended
            continue
        mapped.update(line.split(maxsplit=5)[-1] for line in lines if _BUFFERS in line)
    return mapped

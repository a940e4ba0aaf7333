"""DeepSpeed's CPU operator, compiled by one process of a machine at a time, under a lock that dies with its owner.

DeepSpeed compiles a C++ operator when the first gloo group of an account starts. torch guards such a build with a
plain file, which a killed build leaves behind, and for which every later start would wait without end or word.
Here builds are serialised by the kernel's own file lock, so that a leftover is recognised and removed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from unigrf_dist.errors import UserError
from unigrf_dist.ranks.announce import Announce

_OPERATOR = "ShareMemCommBuilder"
_QUIET_SECONDS = 3.0
_POLL_SECONDS = 0.1
# On a file system that several hosts share, the owner may run where it can't be seen. The longest build seen took
# three minutes, on two busy cores.
_FOREIGN_BUILD_SECONDS = 300.0
_SHARED_FILE_SYSTEMS = ("nfs", "lustre", "gpfs", "cifs", "smb", "beegfs", "ceph", "glusterfs", "fuse", "afs")


def build_cpu_operator(announce: Announce) -> None:
    """Compile and load DeepSpeed's operator for gloo, unless it is there.

    Args:
        announce: told when this takes longer than a few seconds.

    Raises:
        UserError: the operator can't be compiled, or the folder of compiled operators can't be written.
    """
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import _get_build_directory

    builder = get_accelerator().create_op_builder(_OPERATOR)
    try:
        folder = Path(_get_build_directory(builder.name, verbose=False))
        with exclusive(folder.parent / f".{folder.name}.owner", announce):
            _wait_for_foreign_build(folder / "lock", announce)
            if not any(folder.glob("*.so")):
                announce("compiling DeepSpeed's communication operator: minutes, at the first start only")
            builder.load(verbose=False)
    except OSError as error:
        raise UserError(
            f"{error.filename}: DeepSpeed's operator can't be compiled there: {error.strerror}; "
            "set TORCH_EXTENSIONS_DIR to a folder that can be written"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"DeepSpeed's operator can't be compiled ({str(error).splitlines()[0]}); "
            "`unigrf doctor` says what is missing"
        ) from error


@contextmanager
def exclusive(file: Path, announce: Announce) -> Iterator[None]:
    """Hold ``file`` as a lock; the kernel releases it when this process ends, however it ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as held:
        started, told = time.monotonic(), False
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told and time.monotonic() - started > _QUIET_SECONDS:
                    held.seek(0)
                    owner = held.read().strip() or "another process"
                    announce(f"waiting for {owner}, which compiles DeepSpeed's operator")
                    told = True
                time.sleep(_POLL_SECONDS)
        held.truncate(0)
        held.write(f"process {os.getpid()} on {os.uname().nodename}")
        held.flush()
        yield


def is_abandoned(lock: Path) -> bool:
    """Whether the process that made torch's lock of a build has ended and left it behind.

    Where other hosts may see the file, their processes can't be looked at: it counts as abandoned once nothing
    beside it has changed for longer than a build takes.
    """
    if _has_owner(lock):
        return False
    return not _is_shared(lock) or _unchanged_seconds(lock.parent) > _FOREIGN_BUILD_SECONDS


def _wait_for_foreign_build(lock: Path, announce: Announce) -> None:
    """Wait while a program that is not ours builds the operator; remove the lock of a build that was killed."""
    started, told = time.monotonic(), False
    while lock.exists():
        waited = time.monotonic() - started
        if is_abandoned(lock):
            announce(f"removed {lock}: a killed build had left it")
            lock.unlink(missing_ok=True)
            return
        if not told and waited > _QUIET_SECONDS:
            announce(
                f"waiting for the process that holds {lock}; if none is compiling on any host, remove that file"
            )
            told = True
        time.sleep(_POLL_SECONDS)


def _has_owner(lock: Path) -> bool:
    """Whether a process of this machine has the file open, as torch does while it builds."""
    wanted = os.stat(lock)
    for process in psutil.process_iter():
        try:
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                found = descriptor.stat()
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
        except OSError:
            # It has ended, or belongs to somebody else; torch's folder is one per account.
            continue
    return False


def _is_shared(path: Path) -> bool:
    """Whether other hosts may see the file system of ``path``."""
    mounts = [mount for mount in psutil.disk_partitions(all=True) if path.is_relative_to(mount.mountpoint)]
    kind = max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else ""
    return kind.startswith(_SHARED_FILE_SYSTEMS)


def _unchanged_seconds(folder: Path) -> float:
    """Time since any file in ``folder`` changed."""
    return time.time() - max(file.stat().st_mtime for file in [folder, *folder.iterdir()])

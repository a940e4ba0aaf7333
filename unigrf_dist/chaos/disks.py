"""Faults of the disk, in a mount namespace of its own: nothing else on the machine sees them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unigrf_dist.chaos.training import CHECKPOINT_STEPS, Training, last_words
from unigrf_dist.chaos.weights import is_equal, weights_at
from unigrf_dist.chaos.workshop import Outcome, Workshop, latest_of
from unigrf_dist.errors import UserError
from unigrf_dist.train.checkpoints.checkpoints import read_checked

_DISK_BYTES = 16 << 20
_UNSAVED = "the checkpoint could not be saved"
# A save that meets the fault ends within the next steps.
_NOTICE_SECONDS = 60.0


@dataclass(frozen=True)
class Mounts:
    """A mount namespace, held by a process that sleeps in it.

    Attributes:
        keeper: that process.
        enter: words before a command that shall run there.
    """

    keeper: int
    enter: list[str]

    def run(self, *command: str) -> None:
        """Run a command there.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        subprocess.run([*self.enter, *command], check=True, capture_output=True)

    def seen(self, path: Path) -> Path:
        """Where processes outside see what lies at ``path`` inside."""
        return Path(f"/proc/{self.keeper}/root{path.absolute()}")


@contextmanager
def own_mounts() -> Iterator[Mounts]:
    """A mount namespace; of a user namespace where this process isn't root.

    Raises:
        UserError: the system allows none.
    """
    if not mounts_allowed():
        raise UserError("no mount namespace can be made here: leave out the faults full-disk and read-only")
    keeper = subprocess.Popen([*_unshare(), "sleep", "infinity"])
    try:
        user = [] if os.getuid() == 0 else ["--user", "--preserve-credentials"]
        enter = ["nsenter", "--target", str(keeper.pid), "--mount", *user]
        while os.readlink(f"/proc/{keeper.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            time.sleep(0.01)
        yield Mounts(keeper.pid, enter)
    finally:
        keeper.kill()
        keeper.wait()


def mounts_allowed() -> bool:
    """Whether this process may make a mount namespace."""
    if not all(map(shutil.which, ("unshare", "nsenter", "mount"))):
        return False
    return subprocess.run([*_unshare(), "true"], capture_output=True, check=False).returncode == 0


def _unshare() -> list[str]:
    return ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]


def full_disk(work: Workshop) -> Outcome:
    """The run's disk fills up and is freed: a warning per save, the last checkpoint intact, then on as before."""
    run = work.new_run().absolute()
    work.reference()
    with own_mounts() as mounts:
        run.mkdir()
        mounts.run("mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(run))
        training = work.train(run, 2, within=mounts.enter)
        training.run = mounts.seen(run)
        _wait_for_checkpoint(training)
        ballast, began = training.run / "ballast", time.monotonic()
        _fill(ballast)
        intact = _is_told_and_intact(training)
        ballast.unlink()
        return _ended("full disk", work, training, intact, began)


def read_only(work: Workshop) -> Outcome:
    """The folder of the checkpoints is read-only for a while: the same."""
    run = work.new_run().absolute()
    work.reference()
    with own_mounts() as mounts:
        training = work.train(run, 2, within=mounts.enter)
        _wait_for_checkpoint(training)
        folder, began = str(run / "checkpoints"), time.monotonic()
        mounts.run("mount", "--bind", folder, folder)
        mounts.run("mount", "-o", "remount,bind,ro", folder)
        intact = _is_told_and_intact(training)
        mounts.run("umount", folder)
        return _ended("read-only folder", work, training, intact, began)


def _wait_for_checkpoint(training: Training) -> None:
    training.wait_for_step(CHECKPOINT_STEPS + 2)
    while not latest_of(training.run) and training.process.poll() is None:
        time.sleep(0.01)


def _fill(file: Path) -> None:
    """Write until there is no room."""
    for block in (1 << 20, 1 << 12, 1):
        try:
            with file.open("ab", buffering=0) as ballast:
                while True:
                    ballast.write(b"\0" * block)
        except OSError:
            continue


def _is_told_and_intact(training: Training) -> bool:
    """Whether a save is told to have failed, and the latest checkpoint can be read nevertheless."""
    deadline = time.monotonic() + _NOTICE_SECONDS
    while _UNSAVED not in training.said():
        if training.process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    read_checked(training.run / "checkpoints" / latest_of(training.run))
    return True


def _ended(fault: str, work: Workshop, training: Training, intact: bool, began: float) -> Outcome:
    status, seconds = training.wait(), time.monotonic() - began
    if not intact or status != 0:
        return Outcome(fault, False, seconds, f"status {status}: {last_words(training)}")
    warnings = training.said().count(_UNSAVED)
    equal = is_equal(work.reference(), weights_at(training.run))
    weights = "the weights" if equal else "other weights than those"
    told = f"{warnings} warning(s), trained on to {weights} of an undisturbed run"
    return Outcome(fault, equal, seconds, told)

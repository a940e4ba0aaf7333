"""The staging folder of a preparation: finished pieces of its work, which outlive the process that made them.

It lies beside the data set's folder. A piece is a folder that appears complete or not at all: a killed preparation
goes on behind the last finished piece, and several processes can work on one preparation.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from unigrf_dist.errors import UserError

RECORD_FILE = "record.json"
_PLAN_FILE, _LOCK_FILE, _TASKS_FILE = "plan.json", "lock", "tasks"


class StagingFolder:
    """Finished pieces of one preparation.

    Args:
        path: the folder; it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def piece(self, kind: str, number: int = 0) -> Path:
        """Folder of a piece, finished or not."""
        return self.path / f"{kind}-{number:05d}"

    def has(self, kind: str, number: int = 0) -> bool:
        """Whether a piece is finished."""
        return self.piece(kind, number).is_dir()

    def record(self, kind: str, number: int = 0) -> dict[str, Any]:
        """What was noted when the piece was finished."""
        found: dict[str, Any] = json.loads((self.piece(kind, number) / RECORD_FILE).read_text(encoding="utf-8"))
        return found

    @contextmanager
    def new_piece(self, kind: str, number: int = 0) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the folder and the record of a piece, both to fill; it is finished when the block succeeds."""
        partial = Path(tempfile.mkdtemp(prefix=".piece-", dir=self.path))
        record: dict[str, Any] = {}
        try:
            yield partial, record
            (partial / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
            if not self.has(kind, number):  # else another process finished the same piece meanwhile
                partial.rename(self.piece(kind, number))
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a name of a folder that does not exist, for temporary files of this process."""
        place = Path(tempfile.mkdtemp(prefix=".work-", dir=self.path))
        try:
            yield place / "work"
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def staging_folder(out: Path, plan: dict[str, Any], *, shared: bool) -> Iterator[StagingFolder]:
    """The staging folder of the data set ``out``, new or taken up where a killed process has left it.

    It stays if the process is killed or ``shared``, and where a shared task has worked on it until the data set is
    there. Otherwise it is removed on exit, whatever happened.

    Args:
        out: folder of the data set.
        plan: what the preparation depends on; pieces of another plan are worthless.
        shared: whether other processes may work in it at the same time.

    Raises:
        UserError: another process is at work there that does not share, or tasks of another plan have left it.
    """
    path = out.parent / f".{out.name}.staging"
    path.mkdir(parents=True, exist_ok=True)
    with (path / _LOCK_FILE).open("w") as lock:
        _lock(lock, out, shared)
        finished = False
        try:
            _take_up(path, plan, shared)
            yield StagingFolder(path)
            finished = True
        finally:
            if not shared and (finished or not (path / _TASKS_FILE).exists()):
                shutil.rmtree(path, ignore_errors=True)


def _lock(lock: IO[str], out: Path, shared: bool) -> None:
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{out}: another process is preparing it; wait for it, or choose another folder") from None


def _take_up(path: Path, plan: dict[str, Any], shared: bool) -> None:
    """Keep the folder's pieces if they are of this plan, remove them if nobody will miss them."""
    text = json.dumps(plan, indent=1, sort_keys=True)
    file = path / _PLAN_FILE
    if file.exists() and file.read_text(encoding="utf-8") != text:
        if (path / _TASKS_FILE).exists():
            raise UserError(
                f"{path}: holds what tasks have prepared from other files or by other options; remove it, or name "
                "the same"
            )
        _remove(path, "*")
    elif not shared:
        # Left by a process that was killed: nobody else works here now.
        _remove(path, ".*")
        for entry in path.parent.iterdir():
            if entry.name.startswith(f"{path.name.removesuffix('.staging')}.partial-"):
                shutil.rmtree(entry, ignore_errors=True)
    # In one step, as another task may write the same file now.
    with tempfile.NamedTemporaryFile("w", dir=path, prefix=".plan-", delete=False, encoding="utf-8") as new:
        new.write(text)
    Path(new.name).rename(file)
    if shared:
        (path / _TASKS_FILE).touch()


def _remove(path: Path, pattern: str) -> None:
    for entry in path.glob(pattern):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != _LOCK_FILE:
            entry.unlink()

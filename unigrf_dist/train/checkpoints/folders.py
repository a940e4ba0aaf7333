"""The folder of a run's checkpoints: which are complete, which are named, what a run may do with them.

``RUN/checkpoints`` holds a folder ``step-00000123`` per checkpoint and the files ``latest`` and ``best``, each
with the name of one. A checkpoint is written as ``step-00000123.partial``, to the disk, and then renamed: what has
its final name is complete.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from unigrf_dist.errors import UserError
from unigrf_dist.train.checkpoints.blocks import sync

LATEST, BEST = "latest", "best"
_NAME = re.compile(r"step-\d{8,}")
_REPLACED, _ROLLED_BACK = ".replaced", ".rolled-back"


class CheckpointFolders:
    """Names and pointers; rank 0 alone changes them.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def names(self) -> list[str]:
        """Complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if p.is_dir() and _NAME.fullmatch(p.name))

    def has(self, pointer: str) -> bool:
        return (self.folder / pointer).exists()

    def resolve(self, name: str) -> Path:
        """The folder that a pointer or a checkpoint's name stands for.

        Raises:
            UserError: there is no such checkpoint, or the pointer holds something else than a checkpoint's name.
        """
        source, named = self.folder / name, name
        if name in (LATEST, BEST):
            if not source.is_file():
                raise UserError(f"{source}: no such checkpoint; there are: {self._listed()}")
            named = source.read_text(encoding="utf-8", errors="replace").strip()
        if not _NAME.fullmatch(named):
            raise UserError(f"{source}: {named[:60]!r} is no name of a checkpoint; there are: {self._listed()}")
        if not (self.folder / named).is_dir():
            raise UserError(f"{self.folder / named}: no such checkpoint; there are: {self._listed()}")
        return self.folder / named

    def refuse_ambiguous(self) -> None:
        """Raise UserError where checkpoints are there but nothing says which one to resume from."""
        if not self.has(LATEST) and self.names():
            raise UserError(
                f"{self.folder}: no file `latest`, but checkpoints: {self._listed()}; write one of them into it "
                "to go on from there, or name another folder (--run)"
            )

    def refuse_used(self) -> None:
        """Raise UserError where a new run would mix with the checkpoints of an earlier one."""
        if self.names() or self.has(LATEST) or self.has(BEST):
            raise UserError(
                f"{self.folder.parent}: holds a run already; go on with it (--resume) or name another (--run)"
            )

    def begin(self, step: int) -> Path:
        """A fresh folder to write the checkpoint of ``step`` into."""
        partial = self.folder / f"step-{step:08d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return partial

    def publish(self, partial: Path) -> Path:
        """Give a complete checkpoint its final name; one of the same step, from before a rollback, is replaced."""
        place = partial.with_suffix("")
        replaced = place.with_suffix(_REPLACED)
        sync(partial)
        shutil.rmtree(replaced, ignore_errors=True)
        if place.exists():
            place.rename(replaced)
        partial.rename(place)
        sync(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)
        return place

    def recover(self) -> None:
        """After a killed save: put back what was being replaced, remove what is partial."""
        if not self.folder.is_dir():
            return
        for replaced in self.folder.glob(f"step-*{_REPLACED}"):
            place = replaced.with_suffix("")
            if place.exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(place)
        for partial in self.folder.glob("step-*.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    def set_aside_after(self, name: str) -> list[str]:
        """Rename checkpoints later than ``name``, which a run that was rolled back to it leaves behind.

        They are kept as ``step-….rolled-back``, count no more, and no pointer names them.
        """
        later = [other for other in self.names() if other > name]
        for other in later:
            aside = self.folder / f"{other}{_ROLLED_BACK}"
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / other).rename(aside)
        best = self.folder / BEST
        if best.is_file() and best.read_text(encoding="utf-8", errors="replace").strip() in later:
            best.unlink()
        return later

    def point(self, place: Path, *, best: bool) -> None:
        """Make a complete checkpoint the latest, and the best if it is."""
        for pointer in (BEST, LATEST) if best else (LATEST,):
            partial = self.folder / f"{pointer}.partial"
            partial.write_text(place.name + "\n", encoding="utf-8")
            sync(partial)
            partial.replace(self.folder / pointer)
        sync(self.folder)

    def prune(self, keep: int) -> None:
        """Remove all but the ``keep`` latest checkpoints and those that a pointer names."""
        pointers = [self.folder / pointer for pointer in (LATEST, BEST)]
        named = {p.read_text(encoding="utf-8").strip() for p in pointers if p.exists()}
        for name in self.names()[:-keep]:
            if name not in named:
                shutil.rmtree(self.folder / name)

    def _listed(self) -> str:
        return ", ".join(self.names()) or "none"

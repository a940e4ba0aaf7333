"""Folders that are written atomically: they appear complete or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unigrf_dist.errors import UserError


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``out`` to fill; it is renamed to ``out`` when the block succeeds.

    On any exception, an interrupt included, the temporary folder is removed and ``out`` stays as it was.

    Args:
        out: folder to make. An empty one may exist.
        overwrite: replace ``out`` even if it holds something.

    Raises:
        UserError: ``out`` holds something, or is a file, or cannot be written to, or the disk is full.
    """
    with user_error_of_disk(out):
        refuse_used(out, overwrite)
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        with user_error_of_disk(out):
            yield partial
            # mkdtemp makes folders that only their owner can read.
            partial.chmod(0o777 & ~_umask())
            _put_in_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def user_error_of_disk(out: Path) -> Iterator[None]:
    """Turn a full disk and whatever else the system refuses while writing ``out`` into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{out}: the disk is full; nothing was kept, free some space and run again") from error
        where = f" ({error.filename})" if error.filename not in (None, str(out)) else ""
        raise UserError(f"{out}: cannot be written: {error.strerror}{where}; choose another folder") from error


def refuse_used(out: Path, overwrite: bool) -> None:
    """Raise UserError if ``out`` is a file, or holds something that must not be overwritten."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; choose another folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(f"{out}: is not empty; choose another folder, or allow overwriting it (--overwrite)")


def _put_in_place(partial: Path, out: Path) -> None:
    if not out.exists():
        partial.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
    out.rename(old / out.name)
    partial.rename(out)
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""The folder of an export: its files, their hashes, and how it appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from unigrf_dist.data.manifest import sha256, with_hash, without_hash
from unigrf_dist.errors import UserError

FORMAT = 1
MANIFEST_FILE = "MANIFEST.json"
CONFIG_FILE = "config.json"
ITEMS_FILE = "items.parquet"
CARD_FILE = "README.md"
_FIX = "copy the export again, or make it anew with `unigrf export`"


def refuse_used(folder: Path) -> None:
    """Raise UserError where an export cannot appear, because something is there already."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: there is something already; give a folder that does not exist yet (--out)")


def appear(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside ``folder`` with ``write``, hash its files, and give it its name.

    Raises:
        UserError: the folder is used, can't be written, or ``write`` raised it; nothing is left behind.
    """
    refuse_used(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        partial.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{partial}: left by an export that was killed, or one is under way; remove it") from None
    except OSError as error:
        raise _unwritten(folder, error) from error
    try:
        write(partial)
        _write_manifest(partial)
        partial.rename(folder)
    except OSError as error:
        raise _unwritten(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verify(folder: Path) -> None:
    """Compare every file of an export with its hash.

    Raises:
        UserError: there is no export, or a file is missing or altered; the message names it.
    """
    file = folder / MANIFEST_FILE
    if not file.is_file():
        raise UserError(f"{folder}: no export here ({MANIFEST_FILE} is missing); make one with `unigrf export`")
    try:
        manifest = json.loads(without_hash(file.read_text(encoding="utf-8")))
        if manifest["format"] != FORMAT:
            raise UserError(f"{folder}: an export of format {manifest['format']}; this version reads {FORMAT}")
        files = {str(name): str(record["sha256"]) for name, record in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: can't be read ({' '.join(str(error).split())}); {_FIX}") from error
    for name, expected in files.items():
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise UserError(f"{file}: names {name!r}, which is outside the export; {_FIX}")
        try:
            found = sha256(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name}: can't be read: {error.strerror}; {_FIX}") from error
        if found != expected:
            raise UserError(f"{folder / name}: its SHA-256 is not that of {MANIFEST_FILE}: altered; {_FIX}")


def _write_manifest(folder: Path) -> None:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = {
        name: {"num_bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names
    }
    body = json.dumps({"format": FORMAT, "files": files}, indent=1)
    (folder / MANIFEST_FILE).write_text(with_hash(body) + "\n", encoding="utf-8")


def _unwritten(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: the export can't be written: {error.strerror or error}; name another folder")

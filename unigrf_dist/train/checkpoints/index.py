"""The index and the state of a checkpoint, and whether it is of this model; without any rank or engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unigrf_dist.errors import UserError
from unigrf_dist.train.checkpoints.blocks import DamagedError, StoredFile, read_json, sha256

FORMAT = 2
STATE_FILE, INDEX_FILE = "state.json", "index.json"


def read_index(place: Path) -> tuple[list[StoredFile], dict[str, Any]]:
    """The files of a checkpoint, and its state.

    Raises:
        DamagedError: one of the two files is missing or altered, or belongs to another step.
        UserError: the checkpoint is of another format.
    """
    if not (place / INDEX_FILE).exists() and (place / ".metadata").exists():
        raise UserError(f"{place}: a checkpoint of version 0.1, which is not read any more; train anew")
    index = read_json(place / INDEX_FILE)
    if index["format"] != FORMAT:
        raise UserError(f"{place}: a checkpoint of format {index['format']}; this version reads format {FORMAT}")
    if f"step-{index['step']:08d}" != place.name:
        raise DamagedError(f"its index is that of step {index['step']}")
    if sha256(place / STATE_FILE) != index["state_sha256"]:
        raise DamagedError(f"{STATE_FILE} is not the file that was written: its SHA-256 differs")
    return [StoredFile.from_json(record) for record in index["files"]], read_json(place / STATE_FILE)


def refuse_other_model(place: Path, stored: dict[str, Any], own: dict[str, Any]) -> None:
    """Raise UserError where the signature that is stored with a checkpoint is not the model's ``own``."""
    if stored["items"] != own["items"]:
        raise UserError(
            f"{place}: checkpoint of another model: its item table is {stored['items']}, "
            f"the configuration and data give {own['items']}"
        )
    if stored.get("capacity") != own["capacity"]:
        theirs, ours = (_described(each.get("capacity")) for each in (stored, own))
        raise UserError(
            f"{place}: checkpoint of another model: its items have {theirs}, the configuration gives {ours} "
            "(tables.ids); use the configuration it was trained with"
        )
    if stored["catalogue"] != own["catalogue"]:
        raise UserError(
            f"{place}: checkpoint of other data: its items are not those of data.path; "
            "name the data set it was trained on (--set data.path=…)"
        )
    for part in ("features", "dense"):
        theirs, ours = stored[part], own[part]
        for name in sorted(set(theirs) | set(ours)):
            if theirs.get(name) != ours.get(name):
                raise UserError(
                    f"{place}: checkpoint of another model: {name} is {theirs.get(name) or 'absent'} there, "
                    f"{ours.get(name) or 'absent'} here; use the configuration it was trained with"
                )


def _described(capacity: int | None) -> str:
    return "a row each" if capacity is None else f"{capacity} rows in turn"

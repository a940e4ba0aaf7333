"""The index and the state of a checkpoint, and whether it is of this model; without any rank or engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unigrf_dist.data.vocabularies import Vocabularies
from unigrf_dist.errors import UserError
from unigrf_dist.train.checkpoints.blocks import DamagedError, StoredFile, read_json, sha256

FORMAT = 2
# The dense parameter with a row for every behaviour code.
BEHAVIOURS = "behaviours.weight"
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


def refuse_other_model(
    place: Path, stored: dict[str, Any], own: dict[str, Any], vocabularies: Vocabularies, *, may_grow: bool = True
) -> None:
    """Raise UserError where the signature that is stored with a checkpoint is not the model's ``own``.

    Args:
        place: the checkpoint's folder.
        stored: signature of the model that was saved.
        own: signature of the model to load into.
        vocabularies: what the dense ids of the model's data stand for.
        may_grow: whether the data may have more items, behaviours and feature values than the checkpoint, behind
            those that are the same.
    """
    (theirs, their_width), (ours, our_width) = stored["items"], own["items"]
    if their_width != our_width or theirs > ours:
        raise UserError(
            f"{place}: checkpoint of another model: its item table is {stored['items']}, "
            f"the configuration and data give {own['items']}"
        )
    if stored.get("capacity") != own["capacity"]:
        before, after = (_described(each.get("capacity")) for each in (stored, own))
        raise UserError(
            f"{place}: checkpoint of another model: its items have {before}, the configuration gives {after} "
            "(tables.ids); use the configuration it was trained with"
        )
    _refuse_other_data(place, stored, vocabularies)
    if theirs < ours and not may_grow:
        raise UserError(
            f"{place}: the data has grown since, from {theirs:,} to {ours:,} items; train on with it first "
            "(unigrf train --resume --new-data), or name the data set as it was (--set data.path=…)"
        )
    for part in ("features", "dense"):
        for name in sorted(set(stored[part]) | set(own[part])):
            before, after = stored[part].get(name), own[part].get(name)
            if before != after and not (may_grow and _grew(part, name, before, after)):
                raise UserError(
                    f"{place}: checkpoint of another model: {name} is {before or 'absent'} there, "
                    f"{after or 'absent'} here; use the configuration it was trained with"
                )


def _refuse_other_data(place: Path, stored: dict[str, Any], vocabularies: Vocabularies) -> None:
    """Raise UserError unless the first dense ids of the data stand for what they stood for when this was saved."""
    other = []
    if stored["catalogue"] != vocabularies.items(stored["items"][0]):
        other.append("items")
    if not vocabularies.begins_with_behaviours(stored.get("behaviours", [])):
        other.append("behaviours")
    for name, value in stored.get("vocabularies", {}).items():
        known = vocabularies.features.get(name)
        if known is not None and known(stored["features"][name]) != value:
            other.append(f"values of the feature {name}")
    if other:
        raise UserError(
            f"{place}: checkpoint of other data: its {other[0]} are not those of data.path; "
            "name the data set it was trained on (--set data.path=…), or that data set with days appended"
        )


def _grew(part: str, name: str, before: Any, after: Any) -> bool:
    """Whether a table only has more rows than it had: of feature values, or the dense one of behaviours."""
    if before is None or after is None:
        return False
    if part == "features":
        return bool(before < after)
    return name == BEHAVIOURS and before[0] < after[0] and before[1:] == after[1:]


def _described(capacity: int | None) -> str:
    return "a row each" if capacity is None else f"{capacity} rows in turn"

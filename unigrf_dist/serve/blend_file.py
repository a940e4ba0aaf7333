"""``blend.json`` of a run: the lambdas that validation chose, and the curves they were read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unigrf_dist.errors import UserError

BLEND_FILE = "blend.json"
SCHEMA = 1


def write_blend(run: Path, record: dict[str, Any]) -> Path:
    """Write ``record`` (`blend.Choice.to_dict`) into the run's folder; the file is whole at any moment.

    Raises:
        UserError: it can't be written.
    """
    file = run / BLEND_FILE
    partial = file.with_suffix(".json.partial")
    try:
        text = json.dumps({"schema": SCHEMA, **record}, indent=1, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise UserError(f"{file}: the blend can't be written: {error.strerror}") from error
    return file


def read_blend(run: Path) -> dict[str, Any] | None:
    """What ``write_blend`` wrote; None if nothing was chosen yet.

    Raises:
        UserError: the file is there but holds something else.
    """
    file = run / BLEND_FILE
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}")
        record["checkpoint"], record["curves"]
        record["blend"] = {str(task): float(value) for task, value in record["blend"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file}: no blend of this version (schema {SCHEMA}): {error}; choose it again with "
            f"`unigrf evaluate --run {run} --split validation --blend`"
        ) from error
    return dict(record)


def chosen_blend(run: Path, checkpoint: str) -> dict[str, float]:
    """Lambda of each task that was chosen for this checkpoint; empty where none was, as for another checkpoint.

    Raises:
        UserError: the file holds something else.
    """
    record = read_blend(run)
    return record["blend"] if record is not None and record["checkpoint"] == checkpoint else {}

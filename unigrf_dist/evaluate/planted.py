"""The best metrics that synthetic data allow, as written beside them by ``unigrf synthesize``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unigrf_dist.data.manifest import PLANTED_FILE
from unigrf_dist.errors import UserError


def read_planted_optimum(data: Path, split: str) -> dict[str, Any] | None:
    """``{"retrieval": {name: value}, "ranking": {task: {name: value}}}``; None for data that nobody planted.

    Raises:
        UserError: the file is there but can't be read as such.
    """
    file = data / PLANTED_FILE
    if not file.exists():
        return None
    try:
        optimum = json.loads(file.read_text(encoding="utf-8"))[split]
        return {"retrieval": dict(optimum["retrieval"]), "ranking": dict(optimum["ranking"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: no planted optimum of split {split} can be read; synthesize the data again"
        ) from error

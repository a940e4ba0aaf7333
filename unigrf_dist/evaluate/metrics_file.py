"""``metrics.json`` of a run: the metrics of each split that was evaluated."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.evaluator import EvaluationResult

METRICS_FILE = "metrics.json"
SCHEMA = 1


def write_metrics(run: Path, result: EvaluationResult, *, checkpoint: str, step: int, data: Path) -> Path:
    """Write the metrics of ``result.split`` and keep those of the other split. The file is whole at any moment.

    Args:
        run: the run's folder.
        result: metrics of the split.
        checkpoint: name of the checkpoint that was evaluated.
        step: updates it had seen.
        data: folder of the data set.

    Raises:
        UserError: the file can't be written, or holds something other than metrics.
    """
    file = run / METRICS_FILE
    record = {
        "checkpoint": checkpoint,
        "step": step,
        "data": str(data),
        "num_users": result.num_users,
        "protocol": result.protocol,
        "model": result.model.to_dict(),
        "baselines": {name: table.to_dict() for name, table in result.baselines.items()},
        "opponents": {"settings": result.settings, "skipped": result.skipped},
        "planted_optimum": result.planted_optimum,
        "calibration_bins": {
            task: [asdict(each) for each in bins] for task, bins in result.model.calibration_bins.items()
        },
    }
    splits = {**read_metrics(run), result.split: record}
    partial = file.with_suffix(".json.partial")
    try:
        # NaN is no JSON; an undefined metric is null.
        text = json.dumps({"schema": SCHEMA, "splits": splits}, indent=1, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise UserError(f"{file}: the metrics can't be written: {error.strerror}") from error
    return file


def read_metrics(run: Path) -> dict[str, Any]:
    """Records by split; empty if nothing was evaluated yet.

    Raises:
        UserError: the file is there but holds something else.
    """
    file = run / METRICS_FILE
    if not file.exists():
        return {}
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["schema"] != SCHEMA:
            raise ValueError(f"schema {stored['schema']}")
        return dict(stored["splits"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: no metrics of this version (schema {SCHEMA}): {error}; remove it and evaluate again"
        ) from error

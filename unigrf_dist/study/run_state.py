"""How far a run of a study has come, and whether it is still the run that the study asks for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from unigrf_dist.config import Config, load_config
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.metrics_file import read_metrics
from unigrf_dist.study.plan import Trial
from unigrf_dist.train.run_folder import CONFIG_FILE

STUDY_LOG_FILE, TIMES_FILE = "study.log", "study.json"
# Keys that say where and how fast a run goes, not what comes of it.
_FREE_KEYS = ("train.timeout_seconds", "data.prefetch_batches")


class Stage(Enum):
    """What has to be done next."""

    TRAIN = "train"
    RESUME = "resume"
    EVALUATE = "evaluate"
    DONE = "done"


@dataclass
class Times:
    """What the study itself notes about a run.

    Attributes:
        train_seconds: wall time of training, over all its parts.
        evaluate_seconds: wall time of the evaluation.
        trained: whether training came to its end.
    """

    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    trained: bool = False

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{TIMES_FILE}.partial"
        partial.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        partial.replace(folder / TIMES_FILE)


def read_times(folder: Path) -> Times:
    """The study's notes; fresh ones if there are none.

    Raises:
        UserError: the file holds something else.
    """
    file = folder / TIMES_FILE
    if not file.exists():
        return Times()
    try:
        return Times(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: not the notes of a study: {error}; remove {folder} to run it again") from error


def stage(trial: Trial) -> Stage:
    """What the run of ``trial`` needs next; its configuration is taken to be the right one."""
    folder = trial.folder
    if not (folder / "checkpoints" / "latest").exists():
        return Stage.TRAIN
    if not read_times(folder).trained:
        return Stage.RESUME
    # A training that went on after an evaluation may have found a better checkpoint.
    test = read_metrics(folder).get("test", {})
    best = (folder / "checkpoints" / "best").read_text(encoding="utf-8").strip()
    return Stage.DONE if test.get("checkpoint") == best else Stage.EVALUATE


def clear_unstarted(trial: Trial) -> None:
    """Remove what a run that ended before its first checkpoint left behind, all but the log of its attempts."""
    assert stage(trial) is Stage.TRAIN
    for entry in trial.folder.iterdir() if trial.folder.exists() else ():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != STUDY_LOG_FILE:
            entry.unlink()


def refuse_changed(trials: Sequence[Trial]) -> None:
    """Runs of another configuration are not taken for these.

    Raises:
        UserError: a run's folder holds one; the message names the keys of all such runs.
    """
    problems = [
        f"{trial.folder}: was run with {'; '.join(changes[:3])}{' and more' * (len(changes) > 3)}"
        for trial in trials
        if (changes := differences(trial))
    ]
    if problems:
        raise UserError(
            "; ".join(problems) + "; undo the change, remove these folders to run them anew, or name another --out"
        )


def differences(trial: Trial) -> list[str]:
    """``key = old, now new`` of every value in which the run in the folder differs; empty if there is no run."""
    file = trial.folder / CONFIG_FILE
    if not file.exists() or not (trial.folder / "checkpoints" / "latest").exists():
        return []
    before, now = (dict(_leaves(_plain(config))) for config in (load_config(file), trial.config))
    keys = [key for key in {**before, **now} if key not in _FREE_KEYS]
    absent = "not set"
    return [
        f"{key} = {before.get(key, absent)}, now {now.get(key, absent)}"
        for key in keys
        if before.get(key, absent) != now.get(key, absent)
    ]


def _plain(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))

"""Reads the folder of a run. Files that are not there yet are empty records, not errors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from unigrf_dist.data import open_dataset
from unigrf_dist.data.manifest import Manifest
from unigrf_dist.data.sampling import sample_lengths
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.metrics_file import read_metrics
from unigrf_dist.report.user_lists import UserLists, read_user_lists
from unigrf_dist.serve.blend_file import read_blend
from unigrf_dist.train.run_folder import CONFIG_FILE, LOG_FILE

Record = dict[str, Any]


@dataclass
class RunLog:
    """The lines of ``log.jsonl`` that still count, in order.

    Attributes:
        header: latest header.
        steps: step records; only every ``log_every_steps``-th step has one.
        validations: validation records.
        exact_norms: measurements of the exact gradient norms.
        days: how well appended days were predicted before they were trained on.
        finished: ends of training, by plan, by patience or by request; of a resumed run several.
    """

    header: Record = field(default_factory=dict)
    steps: list[Record] = field(default_factory=list)
    validations: list[Record] = field(default_factory=list)
    exact_norms: list[Record] = field(default_factory=list)
    days: list[Record] = field(default_factory=list)
    finished: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Take in the next line. A resumed run repeats what came after its checkpoint: the repetition counts."""
        kind = record.get("kind")
        if kind == "header":
            resumed = record.get("resumed_at_step", 0)
            self.header = record
            for records in self._by_kind.values():
                records[:] = [each for each in records if each["step"] <= resumed]
        elif kind in self._by_kind:
            self._by_kind[kind].append(record)

    @property
    def days_once(self) -> list[Record]:
        """A record of each day; one that was stopped before its first checkpoint was evaluated again."""
        return list({each["day"]: each for each in self.days}.values())

    @property
    def seconds(self) -> float:
        """Time between logged steps, without validations and saves."""
        return float(sum(each.get("seconds", 0.0) for each in self.steps))

    @property
    def last_step(self) -> int:
        """Steps that the run is known to have made, whether they were logged or not; 0 before the first."""
        records = [each for records in self._by_kind.values() for each in records]
        return max([self.header.get("resumed_at_step", 0), *(int(each["step"]) for each in records)])

    @property
    def _by_kind(self) -> dict[str, list[Record]]:
        return {
            "step": self.steps,
            "validation": self.validations,
            "exact_norms": self.exact_norms,
            "day": self.days,
            "finished": self.finished,
        }


@dataclass(frozen=True)
class DataFacts:
    """What the page tells about the data.

    Attributes:
        manifest: manifest of the data set.
        lengths: ``[n]`` int64, events of each user; of all users, or of a sample spread evenly over the shards.
    """

    manifest: Manifest
    lengths: NDArray[np.int64]


@dataclass(frozen=True)
class RunData:
    """Everything the page shows.

    Attributes:
        run: folder of the run.
        config: resolved configuration; empty if it is not there.
        log: log of the training loop.
        splits: evaluated splits, from ``metrics.json``.
        data: None if the data set can't be read; ``data_problem`` then says why.
        blend: content of ``blend.json``; None if no blend was chosen.
        user_lists: a few users' histories and lists.
    """

    run: Path
    config: Record
    log: RunLog
    splits: Record
    data: DataFacts | None
    data_problem: str
    blend: Record | None
    user_lists: UserLists


def read_run(run: Path) -> RunData:
    """Read the folder of a run.

    Raises:
        UserError: there is no such folder, nothing of a run in it, or a file that is not what its name says.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; give the folder that `unigrf train` wrote (--run)")
    if not any((run / name).exists() for name in (CONFIG_FILE, LOG_FILE)):
        raise UserError(f"{run}: no run here (neither {CONFIG_FILE} nor {LOG_FILE}); give the folder of a run")
    config = _read_config(run / CONFIG_FILE)
    data, problem = _read_data(config.get("data", {}).get("path"))
    log, splits, blend = read_log(run / LOG_FILE), read_metrics(run), read_blend(run)
    return RunData(run, config, log, splits, data, problem, blend, read_user_lists(run))


def _read_config(file: Path) -> Record:
    if not file.exists():
        return {}
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: the configuration can't be read: {' '.join(str(error).split())}") from error
    # Not validated against the schema: the report of an old run must not fail because a key was renamed.
    if not isinstance(config, dict) or not isinstance(config.get("data", {}), dict):
        raise UserError(f"{file}: no configuration of a run; it must be a mapping of sections")
    return config


def read_log(file: Path) -> RunLog:
    """What counts of a training log; empty if there is none.

    Raises:
        UserError: a line is no record.
    """
    log = RunLog()
    if not file.exists():
        return log
    text = file.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        try:
            log.add(json.loads(line))
        except (ValueError, KeyError, AttributeError) as error:
            # The run may be writing its last line right now, or have died while it did.
            if line.endswith("\n"):
                raise UserError(f"{file}, line {number}: no record of a training log: {error}") from error
    return log


def _read_data(path: str | None) -> tuple[DataFacts | None, str]:
    if path is None:
        return None, "the configuration names no data set (data.path)"
    try:
        dataset = open_dataset(path)
        lengths = sample_lengths(dataset)
    except UserError as error:
        return None, str(error)
    return DataFacts(dataset.manifest, lengths), ""

"""What a finished run says of itself, in the words of a study: figures, times, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.metrics_file import METRICS_FILE, read_metrics
from unigrf_dist.report.run_data import RunLog, read_log
from unigrf_dist.study.plan import Trial
from unigrf_dist.study.run_state import read_times
from unigrf_dist.study.schema import METRICS, RETRIEVAL_METRICS

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class RunMetrics:
    """A finished run. Ranking figures are those of the first ranking task, as in model selection.

    Attributes:
        variant: its name in the study.
        seed: ``train.seed``.
        folder: of the run.
        validation: by metric, of the checkpoint that was chosen; None where undefined.
        test: by metric, of the same checkpoint.
        test_interval: by metric, bootstrapped over users at 95 %.
        untrained: of ``retrieval`` and ``ranking`` the task whose loss had no weight.
        train_seconds: wall time of training, over all its parts.
        evaluate_seconds: wall time of the evaluation on the test split.
        best_epoch: after which the chosen checkpoint was saved.
        steps: updates of the whole training.
        steps_per_epoch: at this number of ranks.
        dense_parameters: of the backbone, the small tables and the head.
        table_parameters: of the item table.
        training_loss: by task, mean over the last epoch; what is minimised, with dropout.
    """

    variant: str
    seed: int
    folder: str
    validation: dict[str, float | None]
    test: dict[str, float | None]
    test_interval: dict[str, Interval]
    untrained: list[str]
    train_seconds: float
    evaluate_seconds: float
    best_epoch: int | None
    steps: int
    steps_per_epoch: int
    dense_parameters: int
    table_parameters: int
    training_loss: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def value(self, metric: str) -> float | None:
        """Test figure that says something: None where undefined, or of a task that was not trained."""
        task = "retrieval" if metric in RETRIEVAL_METRICS else "ranking"
        return None if task in self.untrained else self.test.get(metric)


def run_metrics(trial: Trial) -> RunMetrics:
    """Read the folder of a finished run.

    Raises:
        UserError: a file of it is missing or not what its name says.
    """
    folder, log = trial.folder, read_log(trial.folder / "log.jsonl")
    record = read_metrics(folder).get("test")
    if record is None or not log.header:
        raise UserError(f"{folder}: {METRICS_FILE} or log.jsonl is incomplete; remove the folder to run it again")
    best = next((each for each in reversed(log.validations) if each["best"]), None)
    table = _flat(record["model"])
    weights, times = trial.config.objective.weighter, read_times(folder)
    return RunMetrics(
        variant=trial.variant,
        seed=trial.seed,
        folder=str(folder),
        validation={} if best is None else _known(_flat(best)),
        test=_known({name: metric["value"] for name, metric in table.items()}),
        test_interval={name: (table[name]["low"], table[name]["high"]) for name in METRICS if name in table},
        untrained=[task for task in ("retrieval", "ranking") if getattr(weights, task) == 0],
        train_seconds=times.train_seconds,
        evaluate_seconds=times.evaluate_seconds,
        best_epoch=None if best is None else best["epoch"],
        steps=log.validations[-1]["step"] if log.validations else 0,
        steps_per_epoch=log.header["steps_per_epoch"],
        dense_parameters=log.header["dense_parameters"],
        table_parameters=log.header["items"] * trial.config.model.width,
        training_loss=_last_losses(log),
    )


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Retrieval figures, and ranking figures of the first task, under one roof."""
    return {**next(iter(table["ranking"].values())), **table["retrieval"]}


def _known(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: values[name] for name in METRICS if name in values}


def _last_losses(log: RunLog) -> dict[str, float]:
    last = log.steps[-1]["epoch"] if log.steps else 0
    records = [each for each in log.steps if each["epoch"] == last]
    return {
        task: float(np.mean([each[f"loss_{task}"] for each in records])) if records else float("nan")
        for task in ("retrieval", "ranking")
    }

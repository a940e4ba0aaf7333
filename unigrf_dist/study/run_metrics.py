"""What a study reads of a finished run: metrics, times, sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.metrics_file import METRICS_FILE, read_metrics
from unigrf_dist.report.run_data import RunLog, read_log
from unigrf_dist.study.metric_names import by_name, is_retrieval
from unigrf_dist.study.plan import Trial
from unigrf_dist.study.run_state import read_times
from unigrf_dist.train.run_folder import LOG_FILE

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class RunMetrics:
    """A finished run. Metrics go by the names of ``metric_names.py``.

    Attributes:
        variant: name of the variant in the study.
        seed: ``train.seed``.
        folder: folder of the run.
        first_task: rule of the first ranking task, whose metrics need not name it.
        validation: validation metrics of the checkpoint that was chosen; None where undefined.
        test: test metrics of the same checkpoint.
        test_interval: 95 % intervals of the test metrics, bootstrapped over users.
        untrained: of ``retrieval`` and ``ranking`` those whose loss had no weight.
        train_seconds: wall time of training, over all its parts.
        evaluate_seconds: wall time of the evaluation on the test split.
        best_epoch: epoch after which the chosen checkpoint was saved.
        steps: optimizer steps of the whole training.
        steps_per_epoch: steps of an epoch with this number of ranks.
        dense_parameters: parameters of the backbone, the small tables and the head.
        table_parameters: parameters of the item table.
        training_loss: losses of ``retrieval`` and ``ranking``, mean over the last epoch; with dropout.
    """

    variant: str
    seed: int
    folder: str
    first_task: str
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
        """Test metric; None where undefined, or of a task that was not trained."""
        task = "retrieval" if is_retrieval(metric) else "ranking"
        return None if task in self.untrained else self.test.get(metric)


def run_metrics(trial: Trial) -> RunMetrics:
    """Read the folder of a finished run.

    Raises:
        UserError: a file of it is missing or not what its name says.
    """
    folder, log = trial.folder, read_log(trial.folder / LOG_FILE)
    record = read_metrics(folder).get("test")
    if record is None or not log.header:
        raise UserError(f"{folder}: {METRICS_FILE} or {LOG_FILE} is incomplete; remove the folder to run it again")
    best = next((each for each in reversed(log.validations) if each["best"]), None)
    table = by_name(record["model"])
    weights, times = trial.config.objective.weighter, read_times(folder)
    return RunMetrics(
        variant=trial.variant,
        seed=trial.seed,
        folder=str(folder),
        first_task=next(iter(record["model"]["ranking"])),
        validation={} if best is None else by_name(best),
        test={name: metric["value"] for name, metric in table.items()},
        test_interval={name: (metric["low"], metric["high"]) for name, metric in table.items()},
        untrained=[task for task in ("retrieval", "ranking") if getattr(weights, task) == 0],
        train_seconds=times.train_seconds,
        evaluate_seconds=times.evaluate_seconds,
        best_epoch=None if best is None else best["epoch"],
        steps=log.last_step,
        steps_per_epoch=log.header["steps_per_epoch"],
        dense_parameters=log.header["dense_parameters"],
        table_parameters=log.header["items"] * trial.config.model.width,
        training_loss=_last_losses(log),
    )


def _last_losses(log: RunLog) -> dict[str, float]:
    last = log.steps[-1]["epoch"] if log.steps else 0
    records = [each for each in log.steps if each["epoch"] == last]
    return {
        task: float(np.mean([each[f"loss_{task}"] for each in records])) if records else float("nan")
        for task in ("retrieval", "ranking")
    }

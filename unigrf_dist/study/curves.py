"""A scaling study's losses and metrics against the sizes of its runs, and the laws fitted through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from unigrf_dist.config import load_config
from unigrf_dist.data import configured_dataset
from unigrf_dist.report.words import metric_name
from unigrf_dist.study.flops import epoch_flops
from unigrf_dist.study.metric_names import is_less_better
from unigrf_dist.study.power_law import PowerLaw, fit_power_law
from unigrf_dist.study.run_metrics import RunMetrics
from unigrf_dist.study.schema import Scaling
from unigrf_dist.train.run_folder import CONFIG_FILE

Against = Literal["training FLOPs", "parameters"]
AXES: tuple[Against, ...] = ("training FLOPs", "parameters")


@dataclass(frozen=True)
class SizedRun:
    """A finished run, and what it cost.

    Attributes:
        run: metrics of the run.
        blocks: blocks of the model.
        width: width of the model.
        flops: floating-point operations of the whole training.
    """

    run: RunMetrics
    blocks: int
    width: int
    flops: float

    @property
    def parameters(self) -> int:
        return self.run.dense_parameters + self.run.table_parameters

    def size(self, against: Against) -> float:
        return self.flops if against == "training FLOPs" else float(self.parameters)


@dataclass(frozen=True)
class Curve:
    """A loss or metric that should fall with size.

    Attributes:
        name: name of the loss or metric; ``1 - metric`` where more of the metric is better.
        values: ``[runs]`` values in the order of the runs; NaN where there is none.
        laws: by axis, the fitted law or why there is none.
    """

    name: str
    values: np.ndarray
    laws: Mapping[Against, PowerLaw | str]


def sized_runs(runs: Sequence[RunMetrics]) -> list[SizedRun]:
    """Runs with their costs, read from their configurations and data."""
    sized, flops = [], {}
    for run in runs:
        config = load_config(Path(run.folder) / CONFIG_FILE)
        if run.variant not in flops:
            flops[run.variant] = epoch_flops(config, configured_dataset(config.data))
        spent = flops[run.variant] * run.steps / run.steps_per_epoch
        sized.append(SizedRun(run, config.model.blocks, config.model.width, spent))
    return sized


def curves(study: Scaling, runs: Sequence[SizedRun]) -> list[Curve]:
    """Both training losses and every metric of the study, each fitted against both axes."""
    tasks = [task for task in ("retrieval", "ranking") if not any(task in each.run.untrained for each in runs)]
    series = {f"{task} loss (training)": [each.run.training_loss[task] for each in runs] for task in tasks}
    for metric in study.metrics:
        values = [np.nan if (value := each.run.value(metric)) is None else value for each in runs]
        rising = not is_less_better(metric)
        name = f"1 - {metric_name(metric)}" if rising else metric_name(metric)
        series[name] = [1 - value for value in values] if rising else values
    return [_curve(name, np.array(values, dtype=float), runs) for name, values in series.items()]


def _curve(name: str, values: np.ndarray, runs: Sequence[SizedRun]) -> Curve:
    valid = np.isfinite(values)
    laws = {
        against: fit_power_law(np.array([each.size(against) for each in runs])[valid], values[valid])
        for against in AXES
    }
    return Curve(name, values, laws)

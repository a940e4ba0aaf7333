"""The sections of charts: each draws a part of a run, or says how to get what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np

from unigrf_dist.report.charts import (
    Chart,
    Floats,
    Line,
    calibration_chart,
    length_chart,
    training_chart,
    validation_chart,
)
from unigrf_dist.report.run_data import Record, RunData
from unigrf_dist.report.svg import PAGE
from unigrf_dist.report.words import Missing, evaluate_command

_SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Section:
    """A section of charts.

    Attributes:
        title: heading of the section.
        parts: charts, and notes in place of those that can't be drawn; at least one.
        hint: how to read the charts; empty if there is nothing to say.
    """

    title: str
    parts: Sequence[Chart | Missing]
    hint: str = ""


def training_section(data: RunData) -> Section:
    """Losses, weights, gradient norms and speed over the steps."""
    if not data.log.steps:
        return Section("Training", [Missing("No step is logged yet", f"unigrf train --run {data.run} --config …")])
    x, label = _progress(data, data.log.steps)

    def line(name: str, key: str, colour: str) -> Line:
        return Line(name, colour, _series(data.log.steps, key))

    both = (("retrieval", PAGE.retrieval), ("ranking", PAGE.ranking))
    weights = [line(task, f"weight_{task}", colour) for task, colour in both]
    norms = [line(task, f"grad_norm_{task}", colour) for task, colour in both]
    rate = [line("dense", "lr", PAGE.series[3])]
    speed = [line("all ranks", "events_per_second", PAGE.series[1])]
    charts = [
        training_chart("Retrieval loss", x, [line("retrieval", "loss_retrieval", PAGE.retrieval)], x_label=label),
        training_chart("Ranking loss", x, [line("ranking", "loss_ranking", PAGE.ranking)], x_label=label),
        training_chart("Task weights", x, weights, x_label=label, scale="from zero"),
        training_chart("Gradient norms at the hidden states", x, norms, x_label=label, scale="log"),
        training_chart("Learning rate", x, rate, x_label=label, scale="from zero", smooth=False),
        training_chart("Events per second", x, speed, x_label=label, scale="from zero"),
    ]
    enhancer_counts = [
        line(name, key, colour)
        for name, key, colour in (
            ("hard negatives", "hard_negatives", PAGE.series[3]),
            ("soft positives", "soft_positives", PAGE.series[1]),
        )
    ]
    if any(np.nansum(each.values) > 0 for each in enhancer_counts):
        charts.append(
            training_chart("Enhancer targets per step", x, enhancer_counts, x_label=label, scale="from zero")
        )
    if data.log.exact_norms:
        charts.append(_estimate_chart(data))
    hint = "Means over all positions of all ranks; the strong line is a running median."
    return Section("Training", charts, hint)


def _estimate_chart(data: RunData) -> Chart:
    """How the estimated ratio of the two gradient norms follows the exact one."""
    records = data.log.exact_norms
    x, label = _progress(data, records)
    ratios = {
        name: _series(records, f"{name}_retrieval") / np.maximum(_series(records, f"{name}_ranking"), 1e-30)
        for name in ("estimate", "exact")
    }
    lines = [
        Line("at the hidden states (used)", PAGE.series[3], ratios["estimate"]),
        Line("at the last block (exact)", PAGE.series[1], ratios["exact"]),
    ]
    title = "Gradient norms, retrieval over ranking"
    chart = training_chart(title, x, lines, x_label=label, scale="log", smooth=False)
    return replace(chart, note=f"Correlation of the logarithms: {log_correlation(*ratios.values())}.")


def log_correlation(estimate: Floats, exact: Floats) -> str:
    """Pearson's correlation of the logarithms, in words where it is not defined."""
    valid = (estimate > 0) & (exact > 0)
    if valid.sum() < 3:
        return "too few measurements"
    return f"{np.corrcoef(np.log(estimate[valid]), np.log(exact[valid]))[0, 1]:.3f} over {valid.sum()} steps"


def validation_section(data: RunData) -> Section:
    """Validation metrics over the epochs, of retrieval and of every ranking task."""
    records = data.log.validations
    if not records:
        note = Missing("No validation is logged yet; they come with the epochs of training")
        return Section("Validation", [note])
    x, label = np.array([float(each["epoch"]) for each in records]), "epoch"
    charts = []
    retrieval = list(records[-1]["retrieval"])
    for title, names in (
        ("Hit rate", [name for name in retrieval if name.startswith("hr@")]),
        ("NDCG and MRR", [name for name in retrieval if not name.startswith("hr@")]),
    ):
        lines = [
            Line(name.upper(), colour, _series(records, "retrieval", name))
            for name, colour in zip(names, cycle(PAGE.series), strict=False)
        ]
        charts.append(validation_chart(title, x, lines, x_label=label))
    tasks = list(records[-1]["ranking"])
    for title, name, less_is_better in (("AUC", "auc", False), ("Log loss", "log_loss", True)):
        lines = [
            Line(task, _task_colour(i), _series(records, "ranking", task, name)) for i, task in enumerate(tasks)
        ]
        charts.append(validation_chart(title, x, lines, x_label=label, less_is_better=less_is_better))
    return Section("Validation", charts, "The large dot marks the best epoch of each line.")


def blend_section(data: RunData) -> Section:
    """What ranking may move: NDCG over lambda, of every ranking task."""
    title = "Lists: how much ranking moves them"
    if data.blend is None:
        command = evaluate_command(data.run, "validation") + " --blend"
        return Section(title, [Missing("No lambda was chosen; retrieval alone orders the lists", command)])
    charts = []
    for task, points in data.blend["curves"].items():
        x = np.array([float(each["value"]) for each in points])
        lines = [
            Line("all users", PAGE.retrieval, _series(points, "ndcg")),
            Line("next item liked", PAGE.ranking, _series(points, "liked")),
        ]
        chart = validation_chart(f"NDCG@10 over λ of {task}", x, lines, x_label="λ")
        charts.append(replace(chart, note=f"Chosen: λ = {data.blend['blend'][task]:g}."))
    hint = (
        f"log p(retrieval) + Σ λ log p(task) orders a list. On validation, {data.blend['num_users']:,} users: the "
        "largest λ that costs at most 1 % and lowers nothing where the next item is liked."
    )
    return Section(title, charts or [Missing("There is no ranking task")], hint)


def calibration_and_data_section(data: RunData) -> Section:
    """Whether probabilities mean what they say, and how long the histories are."""
    split = next((split for split in _SPLITS if split in data.splits), None)
    parts: list[Chart | Missing] = []
    if split is None:
        parts.append(Missing("Calibration is not there yet", evaluate_command(data.run)))
    else:
        bins = data.splits[split]["calibration_bins"]
        parts += [calibration_chart(task, of_task) for task, of_task in bins.items() if of_task]
    if data.data is None:
        parts.append(Missing(f"The lengths of histories can't be shown: {data.data_problem}"))
    else:
        max_events = data.config.get("data", {}).get("max_events")
        parts.append(length_chart(data.data.lengths, data.data.manifest.num_users, max_events))
    return Section("Calibration and data", parts)


def _progress(data: RunData, records: Sequence[Record]) -> tuple[Floats, str]:
    """Position of each record: in epochs if their length is known, else in steps."""
    steps = np.array([float(each["step"]) for each in records])
    per_epoch = data.log.header.get("steps_per_epoch")
    return (steps / per_epoch, "epoch") if per_epoch else (steps, "step")


def _series(records: Sequence[Record], *path: str) -> Floats:
    """The value at ``path`` in each record, NaN where there is none."""
    values = []
    for record in records:
        value: Any = record
        for key in path:
            value = (value or {}).get(key)
        values.append(np.nan if value is None else float(value))
    return np.array(values)


def _task_colour(index: int) -> str:
    return [PAGE.ranking, PAGE.series[3], PAGE.series[1], PAGE.series[0]][index % 4]

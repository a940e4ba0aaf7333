"""The sections of the page: each turns a part of a run into HTML, or says how to get what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
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
from unigrf_dist.report.metric_table import metric_table, protocol_words
from unigrf_dist.report.run_data import Record, RunData
from unigrf_dist.report.svg import RANKING, RETRIEVAL, SERIES, css_colour
from unigrf_dist.report.words import evaluate_command, missing, plain

_SPLITS = ("test", "validation")


def metrics_section(data: RunData) -> str:
    """Figures of the evaluated splits beside baselines and optimum; the validation split folded away."""
    title = "Metrics on the test events"
    if "test" in data.splits:
        parts = [_section(title, metric_table(data.splits["test"]), protocol_words(data.splits["test"]))]
    else:
        parts = [_section(title, missing("Not there yet", evaluate_command(data.run)))]
    if "validation" in data.splits:
        record = data.splits["validation"]
        words = f'<p class="hint">{escape(protocol_words(record))}</p>'
        parts.append(
            f"<details><summary>Metrics on the validation events</summary>{words}{metric_table(record)}</details>"
        )
    return "".join(parts)


def training_section(data: RunData) -> str:
    """Losses, weights, gradient norms and speed over the steps."""
    if not data.log.steps:
        return _section("Training", missing("No step is logged yet", f"unigrf train --run {data.run} --config …"))
    x, label = _progress(data, data.log.steps)

    def line(name: str, key: str, colour: str) -> Line:
        return Line(name, colour, _series(data.log.steps, key))

    both = (("retrieval", RETRIEVAL), ("ranking", RANKING))
    weights = [line(task, f"weight_{task}", colour) for task, colour in both]
    norms = [line(task, f"grad_norm_{task}", colour) for task, colour in both]
    rate = [line("dense", "lr", SERIES[3])]
    speed = [line("all ranks", "events_per_second", SERIES[1])]
    charts = [
        training_chart("Retrieval loss", x, [line("retrieval", "loss_retrieval", RETRIEVAL)], x_label=label),
        training_chart("Ranking loss", x, [line("ranking", "loss_ranking", RANKING)], x_label=label),
        training_chart("Task weights", x, weights, x_label=label, scale="from zero"),
        training_chart("Gradient norms at the hidden states", x, norms, x_label=label, scale="log"),
        training_chart("Learning rate", x, rate, x_label=label, scale="from zero", smooth=False),
        training_chart("Events per second", x, speed, x_label=label, scale="from zero"),
    ]
    enhancer_counts = [
        line(name, key, colour)
        for name, key, colour in (
            ("hard negatives", "hard_negatives", SERIES[3]),
            ("soft_positives", "soft_positives", SERIES[1]),
        )
    ]
    if any(np.nansum(each.values) > 0 for each in enhancer_counts):
        charts.append(
            training_chart("Given by the enhancer, per step", x, enhancer_counts, x_label=label, scale="from zero")
        )
    if data.log.exact_norms:
        charts.append(_estimate_chart(data))
    hint = "Means over all positions of all ranks; the strong line is a running median."
    return _section("Training", _grid(charts), hint)


def _estimate_chart(data: RunData) -> Chart:
    """How the estimated proportion of the gradient norms follows the exact one."""
    records = data.log.exact_norms
    x, label = _progress(data, records)
    ratios = {
        name: _series(records, f"{name}_retrieval") / np.maximum(_series(records, f"{name}_ranking"), 1e-30)
        for name in ("estimate", "exact")
    }
    lines = [
        Line("at the hidden states (used)", SERIES[3], ratios["estimate"]),
        Line("at the last block (exact)", SERIES[1], ratios["exact"]),
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


def validation_section(data: RunData) -> str:
    """Validation figures over the epochs."""
    records = data.log.validations
    if not records:
        return _section(
            "Validation", missing("No validation is logged yet; they come with the epochs of training")
        )
    x, label = np.array([float(each["epoch"]) for each in records]), "epoch"
    charts = []
    retrieval = list(records[-1]["retrieval"])
    for title, names in (
        ("Hit rate", [name for name in retrieval if name.startswith("hr@")]),
        ("NDCG and MRR", [name for name in retrieval if not name.startswith("hr@")]),
    ):
        lines = [
            Line(name.upper(), colour, _series(records, "retrieval", name))
            for name, colour in zip(names, SERIES, strict=False)
        ]
        charts.append(validation_chart(title, x, lines, x_label=label))
    tasks = list(records[-1]["ranking"])
    for title, name, less_is_better in (("AUC", "auc", False), ("Log loss", "log_loss", True)):
        lines = [
            Line(task, _task_colour(i), _series(records, "ranking", task, name)) for i, task in enumerate(tasks)
        ]
        charts.append(validation_chart(title, x, lines, x_label=label, less_is_better=less_is_better))
    return _section("Validation", _grid(charts), "The large dot marks the best epoch of each line.")


def calibration_and_data_section(data: RunData) -> str:
    """Whether probabilities mean what they say, and how long the histories are."""
    split = next((split for split in _SPLITS if split in data.splits), None)
    parts = []
    if split is None:
        parts.append(missing("Calibration is not there yet", evaluate_command(data.run)))
    else:
        bins = data.splits[split]["calibration_bins"]
        parts += [_figure(calibration_chart(task, of_task)) for task, of_task in bins.items() if of_task]
    if data.data is None:
        parts.append(missing(f"The lengths of histories can't be shown: {data.data_problem}"))
    else:
        max_events = data.config.get("data", {}).get("max_events")
        parts.append(_figure(length_chart(data.data.lengths, data.data.manifest.num_users, max_events)))
    return _section("Calibration and data", f'<div class="grid">{"".join(parts)}</div>')


def configuration_section(data: RunData) -> str:
    """Every value the run was made with."""
    if not data.config:
        return _section("Configuration", missing("The run's config.yaml is not there"))
    cards = []
    for name, values in data.config.items():
        rows = values if isinstance(values, dict) else {name: values}
        cells = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in _flat(rows))
        cards.append(f'<div class="card"><h3>{escape(name)}</h3><dl>{cells}</dl></div>')
    return _section("Configuration", f'<div class="config">{"".join(cards)}</div>')


def _flat(values: Record, prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", plain(value)))
    return rows


def _progress(data: RunData, records: Sequence[Record]) -> tuple[Floats, str]:
    """Position of each record: in epochs if their length is known, else in steps."""
    steps = np.array([float(each["step"]) for each in records])
    per_epoch = data.log.header.get("steps_per_epoch")
    return (steps / per_epoch, "epoch") if per_epoch else (steps, "step")


def _series(records: Sequence[Record], *path: str) -> Floats:
    """The value at ``path`` in each record, NaN where there is none."""
    values = []
    for record in records:
        found: Any = record
        for key in path:
            found = (found or {}).get(key)
        values.append(np.nan if found is None else float(found))
    return np.array(values)


def _task_colour(index: int) -> str:
    return [RANKING, SERIES[3], SERIES[1], SERIES[0]][index % 4]


def _section(title: str, body: str, hint: str = "") -> str:
    words = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    return f"<h2>{escape(title)}</h2>{words}{body}"


def _grid(charts: Sequence[Chart]) -> str:
    return f'<div class="grid">{"".join(_figure(chart) for chart in charts)}</div>'


def _figure(chart: Chart) -> str:
    keys = "".join(
        f'<span><i style="background:{css_colour(key.colour)}"></i>{escape(key.name)}'
        f"<b>{escape(key.value)}</b></span>"
        for key in chart.keys
    )
    keys = f'<div class="keys">{keys}</div>' if keys else ""
    note = f"<figcaption>{escape(chart.note)}</figcaption>" if chart.note else ""
    return f"<figure><h3>{escape(chart.title)}</h3>{keys}{chart.svg}{note}</figure>"

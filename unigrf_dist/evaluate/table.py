"""Metrics of an evaluation for the terminal: model, baselines, planted optimum and opponents side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from unigrf_dist.evaluate.evaluator import EvaluationResult
from unigrf_dist.evaluate.metric import Metric
from unigrf_dist.evaluate.verdict import BASELINE_TITLES, below, left_out

SIMPLE_BASELINES = ("popularity", "most_recent", "repeat_last")
"""Shown beside the model and its intervals; the others have a table of their own, as a terminal is narrow."""
ABSENT = "–"


@dataclass(frozen=True)
class _Section:
    """Rows that belong together: retrieval, or one ranking task."""

    title: str
    model: Mapping[str, Metric]
    baselines: list[dict[str, Metric]]
    optimum: Mapping[str, float]


def result_table(result: EvaluationResult) -> Table:
    """One row per metric, 80 columns wide at most; the caption says how it was measured."""
    table = Table(
        title=f"{result.split}: {result.num_users:,} users",
        caption=_caption(result),
        box=SIMPLE_HEAD,
        padding=(0, 1),
    )
    table.add_column("metric", no_wrap=True)
    table.add_column("model", justify="right", style="bold")
    level = result.protocol.get("confidence_level")
    if level:
        table.add_column(f"{level:.0%} interval", justify="right", style="dim", no_wrap=True)
    simple = [name for name in result.baselines if name in SIMPLE_BASELINES]
    for name in simple:
        table.add_column(BASELINE_TITLES.get(name, name).replace(" ", "\n"), justify="right")
    optimum = result.planted_optimum
    if optimum is not None:
        table.add_column("best\npossible", justify="right", style="green")
    for section in _sections(result, simple):
        table.add_row(f"[bold]{escape(section.title)}[/]")
        for name, metric in section.model.items():
            cells = [f"  {name}", _number(metric.value)]
            cells += [_interval(metric)] if level else []
            cells += [_value_of(table, name) for table in section.baselines]
            cells += [_number(section.optimum.get(name))] if optimum is not None else []
            table.add_row(*cells)
        table.add_section()
    return table


def opponents_table(result: EvaluationResult) -> Table | None:
    """The model beside its opponents; the caption says where it is below one. None where there are none."""
    opponents = [name for name in result.baselines if name not in SIMPLE_BASELINES]
    if not opponents and not result.skipped:
        return None
    table = Table(
        title=f"{result.split}: opponents, settings picked on validation",
        caption=_opponents_caption(result),
        box=SIMPLE_HEAD,
        padding=(0, 1),
    )
    table.add_column("metric", no_wrap=True)
    table.add_column("model", justify="right", style="bold")
    for name in opponents:
        table.add_column(BASELINE_TITLES[name].replace(" ", "\n"), justify="right")
    for section in _sections(result, opponents):
        table.add_row(f"[bold]{escape(section.title)}[/]")
        for name, metric in section.model.items():
            others = [_value_of(each, name) for each in section.baselines]
            table.add_row(f"  {name}", _number(metric.value), *others)
        table.add_section()
    return table


def _opponents_caption(result: EvaluationResult) -> str:
    model, others = result.model.to_dict(), {name: each.to_dict() for name, each in result.baselines.items()}
    picked = [f"{BASELINE_TITLES[name]}: {settings}" for name, settings in result.settings.items()]
    return escape("; ".join(below(model, others) + left_out(result.skipped) + picked))


def _sections(result: EvaluationResult, names: list[str]) -> list[_Section]:
    tables, optimum = (
        [result.baselines[name] for name in names],
        result.planted_optimum or {"retrieval": {}, "ranking": {}},
    )
    retrieval = _Section(
        "retrieval", result.model.retrieval, [table.retrieval for table in tables], optimum["retrieval"]
    )
    return [retrieval, *_sections_apart(result, names)] + [
        _Section(
            task, metrics, [table.ranking.get(task, {}) for table in tables], optimum["ranking"].get(task, {})
        )
        for task, metrics in result.model.ranking.items()
    ]


def _sections_apart(result: EvaluationResult, names: list[str]) -> list[_Section]:
    tables = [result.baselines[name] for name in names]
    return [
        _Section(f"retrieval of {group} targets", metrics, [t.retrieval_of.get(group, {}) for t in tables], {})
        for group, metrics in result.model.retrieval_of.items()
    ]


def _value_of(table: Mapping[str, Metric], name: str) -> str:
    return _number(table[name].value if name in table else None)


def _interval(metric: Metric) -> str:
    return ABSENT if metric.low is None else f"{_number(metric.low)}–{_number(metric.high)}"


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"


def _caption(result: EvaluationResult) -> str:
    protocol = result.protocol
    lines = [f"all {protocol['candidates']:,} items are candidates, {protocol['seen_items']}"]
    lines += [protocol["repeats"]] if "repeats" in protocol else []
    if "query_time_visible" in protocol:
        visible = "visible" if protocol["query_time_visible"] else "not visible"
        lines.append(f"time of the query {visible} to the model")
    undefined: dict[str, list[str]] = {}
    for section in _sections(result, []):
        for name, metric in section.model.items():
            if metric.reason:
                undefined.setdefault(f"{section.title}: {metric.reason}", []).append(name)
    lines += [f"no {', '.join(names)} of {why}" for why, names in undefined.items()]
    notes = ((name, metric.note) for name, metric in result.model.retrieval.items())
    lines += [f"{name} says little, {note}" for name, note in notes if note]
    return escape("; ".join(lines))

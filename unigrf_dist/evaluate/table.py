"""The figures of an evaluation for the terminal: model, baselines and planted optimum side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from unigrf_dist.evaluate.evaluator import EvaluationResult
from unigrf_dist.evaluate.figures import Figure

CONTENDER_TITLES = {"popularity": "popularity", "most_recent": "most recent"}
ABSENT = "–"


def result_table(result: EvaluationResult) -> Table:
    """One row per figure; under it in the caption, how it was measured."""
    table = Table(title=f"{result.split}: {result.num_users:,} users", caption=_caption(result.protocol))
    table.add_column("figure")
    table.add_column("model", justify="right", style="bold")
    if result.protocol.get("confidence_level"):
        table.add_column(f"{result.protocol['confidence_level']:.0%} interval", justify="right", style="dim")
    for name in result.baselines:
        table.add_column(CONTENDER_TITLES.get(name, name), justify="right")
    if result.planted_optimum is not None:
        table.add_column("best possible", justify="right", style="green")
    optimum = result.planted_optimum or {"retrieval": {}, "ranking": {}}
    _add_section(
        table,
        "retrieval",
        result.model.retrieval,
        [board.retrieval for board in result.baselines.values()],
        optimum["retrieval"] if result.planted_optimum is not None else None,
    )
    for task, figures in result.model.ranking.items():
        _add_section(
            table,
            task,
            figures,
            [board.ranking[task] for board in result.baselines.values()],
            optimum["ranking"].get(task, {}) if result.planted_optimum is not None else None,
        )
    return table


def _add_section(
    table: Table,
    title: str,
    model: Mapping[str, Figure],
    baselines: list[dict[str, Figure]],
    optimum: Mapping[str, float] | None,
) -> None:
    table.add_row(f"[bold]{title}[/]")
    has_interval = any(figure.low is not None for figure in model.values())
    for name, figure in model.items():
        cells = [f"  {name}", _number(figure.value) if not figure.reason else f"{ABSENT} ({figure.reason})"]
        if has_interval:
            cells.append(ABSENT if figure.low is None else f"{_number(figure.low)} … {_number(figure.high)}")
        cells += [_number(board[name].value) for board in baselines]
        if optimum is not None:
            cells.append(_number(optimum.get(name)))
        table.add_row(*cells)
    table.add_section()


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"


def _caption(protocol: Mapping[str, Any]) -> str:
    lines = [f"all {protocol['candidates']:,} items are candidates, {protocol['seen_items']}"]
    if "query_time_visible" in protocol:
        lines.append(
            f"time of the query {'visible' if protocol['query_time_visible'] else 'not visible'} to the model"
        )
    return "; ".join(lines)

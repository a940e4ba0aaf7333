"""The table of an evaluated split: model, interval, baselines, and what is the best possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from unigrf_dist.evaluate.table import BASELINE_TITLES
from unigrf_dist.report.words import DASH, metric_name, number

Record = Mapping[str, Any]
# Where more is better and 0 is the floor, so that a bar's length means something.
_WITH_BARS = ("hr@", "ndcg@", "mrr")
_BAR_PIXELS = 84


@dataclass(frozen=True)
class _Section:
    """Rows that belong together."""

    title: str
    kind: str
    model: Record
    baselines: list[Record]
    optimum: Record | None


def metric_table(record: Record) -> str:
    """HTML of one split of ``metrics.json``."""
    baselines, optimum = record["baselines"], record["planted_optimum"]
    titles = ["model", "95 % interval"] + [BASELINE_TITLES.get(name, name) for name in baselines]
    titles += ["best possible"] if optimum is not None else []
    head = "".join(f"<th>{escape(title)}</th>" for title in ["", *titles])
    sections = [
        _Section(
            "Retrieval",
            "retrieval",
            record["model"]["retrieval"],
            [table["retrieval"] for table in baselines.values()],
            optimum["retrieval"] if optimum is not None else None,
        )
    ]
    for task, metrics in record["model"]["ranking"].items():
        tables = [table["ranking"][task] for table in baselines.values()]
        best = optimum["ranking"].get(task, {}) if optimum is not None else None
        sections.append(_Section(f"Ranking: {task}", "ranking", metrics, tables, best))
    body = "".join(_section(section, 1 + len(titles)) for section in sections)
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead>{body}</table></div>'


def protocol_words(record: Record) -> str:
    """How the figures were measured, in a sentence."""
    protocol = record["protocol"]
    words = [f"{record['num_users']:,} users", f"checkpoint {record['checkpoint']} (step {record['step']:,})"]
    if "candidates" in protocol:
        words.append(f"all {protocol['candidates']:,} items are candidates, {protocol.get('seen_items', '')}")
    if "query_time_visible" in protocol:
        seen = "sees" if protocol["query_time_visible"] else "does not see"
        words.append(f"the model {seen} the time of the query")
    return "; ".join(words) + "."


def _section(section: _Section, num_columns: int) -> str:
    rows = [f'<tr><th colspan="{num_columns}">{escape(section.title)}</th></tr>']
    for name, metric in section.model.items():
        values = [metric["value"], *(table.get(name, {}).get("value") for table in section.baselines)]
        if section.optimum is not None:
            values.append(section.optimum.get(name))
        full = max((value for value in values if value is not None), default=0.0)
        full = full if name.startswith(_WITH_BARS) else 0.0
        interval = DASH if metric["low"] is None else f"{number(metric['low'])} – {number(metric['high'])}"
        cells = [f"<td>{escape(metric_name(name))}</td>"]
        cells.append(_cell("model", values[0], full, metric.get("reason", "")))
        cells.append(f'<td class="interval">{interval}</td>')
        cells += [_cell("baseline", value, full) for value in values[1 : 1 + len(section.baselines)]]
        if section.optimum is not None:
            cells.append(_cell("best", values[-1], full))
        rows.append(f'<tr class="figure">{"".join(cells)}</tr>')
    return f'<tbody class="{section.kind}">{"".join(rows)}</tbody>'


def _cell(kind: str, value: float | None, full: float, reason: str = "") -> str:
    if value is None:
        return f'<td class="none">{escape(reason) or DASH}</td>'
    bar = f'<span class="bar" style="width:{_BAR_PIXELS * value / full:.0f}px"></span>' if full else ""
    return f'<td class="{kind}">{number(value)}{bar}</td>'

"""The metrics of evaluated splits: model, interval, baselines, and what is the best possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unigrf_dist.evaluate.verdict import BASELINE_TITLES, below, left_out
from unigrf_dist.report.run_data import RunData
from unigrf_dist.report.words import DASH, Missing, evaluate_command, metric_name, number

Record = Mapping[str, Any]
# Where more is better and 0 is the floor, so that a bar's length means something.
_WITH_BARS = ("hr@", "ndcg@", "mrr")
_BAR_PIXELS = 84


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        kind: class of the style sheet.
        text: what it shows.
        bar_pixels: width of the bar under it; None for no bar.
    """

    kind: str
    text: str
    bar_pixels: int | None = None


@dataclass(frozen=True)
class Row:
    """A metric and its cells."""

    name: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Group:
    """Rows that belong together: retrieval, or one ranking task.

    Attributes:
        title: name of the task.
        kind: ``retrieval`` or ``ranking``.
        rows: its metrics.
    """

    title: str
    kind: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class SplitTable:
    """The table of one evaluated split.

    Attributes:
        columns: titles, the first one empty.
        groups: retrieval, then every ranking task.
        protocol: how the metrics were measured, in a sentence.
        verdict: where the model is below another scorer, and which were left out; empty if nothing is.
    """

    columns: Sequence[str]
    groups: Sequence[Group]
    protocol: str
    verdict: str


@dataclass(frozen=True)
class Metrics:
    """Both splits; None where one was not evaluated, with a note in place of the test split."""

    test: SplitTable | None
    validation: SplitTable | None
    missing: Missing


def metrics_section(data: RunData) -> Metrics:
    """Metrics of the evaluated splits beside baselines and optimum."""
    test, validation = (
        split_table(data.splits[split]) if split in data.splits else None for split in ("test", "validation")
    )
    return Metrics(test, validation, Missing("Not there yet", evaluate_command(data.run)))


def split_table(record: Record) -> SplitTable:
    """The table of one split of ``metrics.json``."""
    model, baselines, optimum = record["model"], record["baselines"], record["planted_optimum"]
    columns = ["", "model", "95 % interval"] + [BASELINE_TITLES.get(name, name) for name in baselines]
    columns += ["best possible"] if optimum is not None else []
    retrieval = [table["retrieval"] for table in baselines.values()]
    best = None if optimum is None else optimum["retrieval"]
    groups = [Group("Retrieval", "retrieval", _rows(model["retrieval"], retrieval, best))]
    for group, metrics in model.get("retrieval_of", {}).items():
        of_group = [table.get("retrieval_of", {}).get(group, {}) for table in baselines.values()]
        groups.append(Group(f"Retrieval of {group} targets", "retrieval", _rows(metrics, of_group, None)))
    for task, metrics in model["ranking"].items():
        ranking = [table["ranking"].get(task, {}) for table in baselines.values()]
        best = None if optimum is None else optimum["ranking"].get(task, {})
        groups.append(Group(f"Ranking: {task}", "ranking", _rows(metrics, ranking, best)))
    return SplitTable(columns, groups, protocol_words(record), _verdict(record))


def protocol_words(record: Record) -> str:
    """How the metrics were measured, in a sentence."""
    protocol = record["protocol"]
    words = [f"{record['num_users']:,} users", f"checkpoint {record['checkpoint']} (step {record['step']:,})"]
    if "candidates" in protocol:
        words.append(f"all {protocol['candidates']:,} items are candidates, {protocol.get('seen_items', '')}")
    words += [protocol["repeats"]] if "repeats" in protocol else []
    if "query_time_visible" in protocol:
        sees = "sees" if protocol["query_time_visible"] else "does not see"
        words.append(f"the model {sees} the time of the query")
    return "; ".join(words) + "."


def _verdict(record: Record) -> str:
    # Metrics files of runs that were evaluated before there were opponents have no such entry.
    skipped = record.get("opponents", {}).get("skipped", {})
    sentences = below(record["model"], record["baselines"]) + left_out(skipped)
    notes = ((metric_name(name), metric.get("note")) for name, metric in record["model"]["retrieval"].items())
    sentences += [f"{name} says little, {note}" for name, note in notes if note]
    return "; ".join(sentences)[:1].upper() + "; ".join(sentences)[1:] + "." if sentences else ""


def _rows(model: Record, baselines: Sequence[Record], optimum: Record | None) -> list[Row]:
    return [Row(metric_name(name), _cells(name, metric, baselines, optimum)) for name, metric in model.items()]


def _cells(name: str, metric: Record, baselines: Sequence[Record], optimum: Record | None) -> list[Cell]:
    others = [table.get(name, {}).get("value") for table in baselines]
    best = [] if optimum is None else [optimum.get(name)]
    values = [value for value in (metric["value"], *others, *best) if value is not None]
    # The value whose bar is the longest.
    full = max(values, default=0.0) if name.startswith(_WITH_BARS) else 0.0
    interval = DASH if metric["low"] is None else f"{number(metric['low'])} – {number(metric['high'])}"
    return [
        _cell("model", metric["value"], full, metric.get("reason", "")),
        Cell("interval", interval),
        *(_cell("baseline", value, full) for value in others),
        *(_cell("best", value, full) for value in best),
    ]


def _cell(kind: str, value: float | None, full: float, reason: str = "") -> Cell:
    if value is None:
        return Cell("none", reason or DASH)
    return Cell(kind, number(value), round(_BAR_PIXELS * value / full) if full else None)

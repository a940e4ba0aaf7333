"""The top of the page: what the run is, in a sentence, in its main metrics and in a few facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unigrf_dist.report.run_data import RunData
from unigrf_dist.report.words import Missing, duration, evaluate_command, metric_name, number

_RETRIEVAL_CARDS = ("hr@10", "ndcg@10", "mrr")


@dataclass(frozen=True)
class Card:
    """A main metric.

    Attributes:
        name: name of the metric, with its task if it is one of ranking.
        kind: ``retrieval`` or ``ranking``.
        value: value of the metric; None where it is undefined.
        lines: interval, baseline and optimum below it.
    """

    name: str
    kind: str
    value: float | None
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Summary:
    """What the top of the page shows.

    Attributes:
        name: name of the run's folder.
        sentence: model, data and ranks.
        measured_on: split or validation that the cards come from.
        cards: main metrics, with one AUC for each ranking task.
        missing: note in place of the cards, or None.
        facts: names and values.
    """

    name: str
    sentence: str
    measured_on: str
    cards: Sequence[Card]
    missing: Missing | None
    facts: Sequence[tuple[str, str]]


def summary(data: RunData) -> Summary:
    """Name, sentence, cards and facts of a run."""
    measured_on, cards, missing = "", [], None
    split = next((split for split in ("test", "validation") if split in data.splits), None)
    if split is not None:
        measured_on, cards = f"on {split} events", _evaluated(data.splits[split])
    elif data.log.validations:
        latest = data.log.validations[-1]
        measured_on, cards = f"validation, epoch {latest['epoch']}", _logged(latest)
    else:
        missing = Missing("No metrics yet", evaluate_command(data.run))
    return Summary(data.run.resolve().name, _sentence(data), measured_on, cards, missing, _facts(data))


def _evaluated(record: dict[str, Any]) -> list[Card]:
    popularity = record["baselines"].get("popularity", {"retrieval": {}, "ranking": {}})
    optimum = record["planted_optimum"] or {"retrieval": {}, "ranking": {}}
    cards = []
    for name in _RETRIEVAL_CARDS:
        metric = record["model"]["retrieval"][name]
        lines = _lines(metric, popularity["retrieval"].get(name), optimum["retrieval"].get(name))
        cards.append(Card(metric_name(name), "retrieval", metric["value"], lines))
    for task, metrics in record["model"]["ranking"].items():
        popular = popularity["ranking"].get(task, {}).get("auc")
        lines = _lines(metrics["auc"], popular, optimum["ranking"].get(task, {}).get("auc"))
        cards.append(Card(f"AUC, {task}", "ranking", metrics["auc"]["value"], lines))
    return cards


def _lines(metric: dict[str, Any], popularity: dict[str, Any] | None, best: float | None) -> list[str]:
    lines = []
    if metric["low"] is not None:
        lines.append(f"95 %: {number(metric['low'])} – {number(metric['high'])}")
    if popularity:
        lines.append(f"popularity {number(popularity['value'])}")
    return lines + ([f"best possible {number(best)}"] if best is not None else [])


def _logged(record: dict[str, Any]) -> list[Card]:
    retrieval = [Card(metric_name(name), "retrieval", record["retrieval"][name]) for name in _RETRIEVAL_CARDS]
    return retrieval + [
        Card(f"AUC, {task}", "ranking", metrics["auc"]) for task, metrics in record["ranking"].items()
    ]


def _sentence(data: RunData) -> str:
    model, header = data.config.get("model", {}), data.log.header
    parts = []
    if model:
        blocks, heads = (_counted(model.get(f"{each}s"), each) for each in ("block", "head"))
        parts.append(f"{str(model.get('backbone', '')).upper()}, {blocks} of {heads}, width {model.get('width')}")
    if data.data is not None:
        manifest = data.data.manifest
        users, items, events = manifest.num_users, manifest.num_items, manifest.num_events
        parts.append(f"trained on {manifest.source}: {users:,} users, {items:,} items, {events:,} events")
    if header:
        parts.append(f"{_counted(header.get('ranks', 1), 'rank')} on {header.get('device', '?')}")
        parts.append(f"ZeRO stage {header.get('zero_stage', '?')}")
    return ", ".join(parts) + "." if parts else ""


def _counted(number: int | None, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _facts(data: RunData) -> list[tuple[str, str]]:
    log, facts = data.log, []
    if log.steps or log.last_step:
        per_epoch = log.header.get("steps_per_epoch")
        if per_epoch:
            planned = data.config.get("train", {}).get("epochs")
            done = f"{log.last_step / per_epoch:.1f}".removesuffix(".0")
            facts.append(("epochs", f"{done} of {planned}" if planned else done))
        facts.append(("steps", f"{log.last_step:,}"))
    if log.seconds:
        facts.append(("training time", duration(log.seconds)))
        events = sum(each.get("events_per_second", 0.0) * each.get("seconds", 0.0) for each in log.steps)
        facts.append(("events per second", f"{events / log.seconds:,.0f}"))
    if "dense_parameters" in log.header:
        facts.append(("dense parameters", f"{log.header['dense_parameters']:,}"))
    items, width = log.header.get("items"), data.config.get("model", {}).get("width")
    if items and width:
        facts.append(("item table", f"{items:,} × {width}"))
    return facts

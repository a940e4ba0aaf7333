"""The top of the page: what the run is, in a sentence and in its key figures."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from unigrf_dist.report.run_data import RunData
from unigrf_dist.report.words import duration, evaluate_command, metric_name, missing, number

_RETRIEVAL_CARDS = ("hr@10", "ndcg@10", "mrr")


@dataclass(frozen=True)
class _Card:
    """A key figure and what stands under it."""

    name: str
    kind: str
    value: float | None
    more: list[str]


def summary(data: RunData) -> str:
    """Title, sentence, cards and facts."""
    split = next((split for split in ("test", "validation") if split in data.splits), None)
    if split is not None:
        cards = _cards(_evaluated(data.splits[split]), f"on {split} events")
    elif data.log.validations:
        latest = data.log.validations[-1]
        cards = _cards(_logged(latest), f"validation, epoch {latest['epoch']}")
    else:
        cards = missing("No figures yet", evaluate_command(data.run))
    return (
        f'<p class="eyebrow">unigrf run</p><h1>{escape(data.run.resolve().name)}</h1>'
        f'<p class="lede">{escape(_sentence(data))}</p>{cards}{_facts(data)}'
    )


def _evaluated(record: dict[str, Any]) -> list[_Card]:
    baseline = record["baselines"].get("popularity")
    optimum = record["planted_optimum"]

    def more(metric: dict[str, Any], popular: dict[str, Any], best: float | None) -> list[str]:
        interval = f"95 %: {number(metric['low'])} – {number(metric['high'])}"
        lines = [interval] if metric["low"] is not None else []
        lines += [f"popularity {number(popular['value'])}"] if popular else []
        return lines + ([f"best possible {number(best)}"] if best is not None else [])

    cards = []
    for name in _RETRIEVAL_CARDS:
        metric = record["model"]["retrieval"][name]
        popular = baseline["retrieval"][name] if baseline else {}
        best = optimum["retrieval"].get(name) if optimum else None
        cards.append(_Card(metric_name(name), "retrieval", metric["value"], more(metric, popular, best)))
    task, metrics = next(iter(record["model"]["ranking"].items()))
    popular = baseline["ranking"][task]["auc"] if baseline else {}
    best = optimum["ranking"].get(task, {}).get("auc") if optimum else None
    return [*cards, _Card(f"AUC, {task}", "ranking", metrics["auc"]["value"], more(metrics["auc"], popular, best))]


def _logged(record: dict[str, Any]) -> list[_Card]:
    cards = [_Card(metric_name(name), "retrieval", record["retrieval"][name], []) for name in _RETRIEVAL_CARDS]
    task, metrics = next(iter(record["ranking"].items()))
    return [*cards, _Card(f"AUC, {task}", "ranking", metrics["auc"], [])]


def _cards(cards: list[_Card], where: str) -> str:
    boxes = "".join(
        f'<div class="card"><div class="name">{escape(card.name)} <small>{escape(where)}</small></div>'
        f'<div class="value {card.kind}">{number(card.value)}</div>'
        f'<div class="more">{"<br>".join(map(escape, card.more))}</div></div>'
        for card in cards
    )
    return f'<div class="figures">{boxes}</div>'


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


def _facts(data: RunData) -> str:
    log, facts = data.log, []
    if log.steps:
        last = log.steps[-1]
        per_epoch = log.header.get("steps_per_epoch")
        if per_epoch:
            planned = data.config.get("train", {}).get("epochs")
            done = f"{last['step'] / per_epoch:.1f}".removesuffix(".0")
            facts.append(("epochs", f"{done} of {planned}" if planned else done))
        facts.append(("steps", f"{last['step']:,}"))
        facts.append(("training time", duration(log.seconds)))
        events = sum(each.get("events_per_second", 0.0) * each.get("seconds", 0.0) for each in log.steps)
        if log.seconds:
            facts.append(("events per second", f"{events / log.seconds:,.0f}"))
    if "dense_parameters" in log.header:
        facts.append(("dense parameters", f"{log.header['dense_parameters']:,}"))
    items, width = log.header.get("items"), data.config.get("model", {}).get("width")
    if items and width:
        facts.append(("item table", f"{items:,} × {width}"))
    if not facts:
        return ""
    cells = "".join(f"<div><span>{escape(name)}</span>{escape(value)}</div>" for name, value in facts)
    return f'<div class="card facts">{cells}</div>'

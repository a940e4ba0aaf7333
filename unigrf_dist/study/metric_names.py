"""Names of metrics in a study: ``ndcg@10``, ``auc`` of the first ranking task, ``auc[click == 1]`` of any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unigrf_dist.config.task_rule import parse_rule
from unigrf_dist.evaluate.metric_names import metric_of_task
from unigrf_dist.evaluate.metrics import BEST_AT_ONE, LESS_IS_BETTER, RANKING_METRICS, RETRIEVAL_METRICS

# Of a metric that is best at 1 neither more nor less is better, so that its differences have no verdict.
TASK_METRICS = tuple(name for name in RANKING_METRICS if name not in BEST_AT_ONE)


def metric_of_study(text: str) -> str:
    """The name of a metric as studies write it, with the rule of its task, if any, in its usual form.

    Raises:
        ValueError: there is no such metric; the message lists those there are.
    """
    name, rule = split_task(text)
    if rule is None and name in (*RETRIEVAL_METRICS, *TASK_METRICS):
        return name
    if rule is not None and name in TASK_METRICS:
        return metric_of_task(name, str(parse_rule(rule)))
    raise ValueError(
        f"no such metric: {text}; there are: {', '.join(RETRIEVAL_METRICS)}; of the first ranking task "
        f"{', '.join(TASK_METRICS)}; of any ranking task {', '.join(f'{each}[RULE]' for each in TASK_METRICS)}"
    )


def split_task(metric: str) -> tuple[str, str | None]:
    """Name of a metric without its task, and the rule of the task; None where none is named."""
    name, bracket, rule = metric.partition("[")
    return (name, rule.removesuffix("]")) if bracket and rule.endswith("]") else (metric, None)


def is_of_first_task(metric: str) -> bool:
    """Whether it is a ranking metric that names no task."""
    return metric in TASK_METRICS


def is_retrieval(metric: str) -> bool:
    """Whether it is a metric of retrieval."""
    return metric in RETRIEVAL_METRICS


def is_less_better(metric: str) -> bool:
    """Whether a smaller value is better."""
    return split_task(metric)[0] in LESS_IS_BETTER


def by_name(table: Mapping[str, Any]) -> dict[str, Any]:
    """All metrics of a study by name.

    Args:
        table: ``{"retrieval": {name: value}, "ranking": {rule: {name: value}}}`` as logs and ``metrics.json`` have
            it; its first ranking task is the first of the configuration.
    """
    first = next(iter(table["ranking"].values()))
    values = {name: table["retrieval"][name] for name in RETRIEVAL_METRICS if name in table["retrieval"]}
    values |= {name: first[name] for name in TASK_METRICS if name in first}
    for rule, metrics in table["ranking"].items():
        values |= {metric_of_task(name, rule): metrics[name] for name in TASK_METRICS if name in metrics}
    return values

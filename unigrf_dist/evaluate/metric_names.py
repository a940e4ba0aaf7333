"""Names of metrics where there are several ranking tasks: ``auc[click == 1]`` is the AUC of that task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unigrf_dist.config.task_rule import parse_rule
from unigrf_dist.evaluate.metrics import RANKING_METRICS, RETRIEVAL_METRICS

_NAME = re.compile(r"\s*([\w@]+)\s*(?:\[([^\[\]]*)\]\s*)?")


@dataclass(frozen=True)
class MetricName:
    """One metric of an evaluation; as text it is its name in ``named_metrics``.

    Attributes:
        metric: one of ``RETRIEVAL_METRICS`` or ``RANKING_METRICS``.
        task: rule of the ranking task; None for a metric of retrieval.
        of_several: whether there are several ranking tasks.
        taken_as_first: whether no task was named, so that the first one is meant.
    """

    metric: str
    task: str | None = None
    of_several: bool = False
    taken_as_first: bool = False

    def __str__(self) -> str:
        return metric_of_task(self.metric, self.task) if self.task and self.of_several else self.metric

    @property
    def described(self) -> str:
        """The name, and which task is meant where several could be."""
        if self.of_several and self.taken_as_first:
            return f"{self.metric} of the first task, {self.task}"
        return str(self)


def metric_of_task(metric: str, task: str) -> str:
    """``auc`` of ``click == 1`` is ``auc[click == 1]``."""
    return f"{metric}[{task}]"


def read_metric_name(text: str, tasks: Sequence[str]) -> MetricName:
    """Which metric ``text`` stands for; a metric of ranking without a task is that of the first one.

    Args:
        text: ``ndcg@10``, ``auc`` or ``auc[click == 1]``; spacing does not matter.
        tasks: rules of the ranking tasks, as ``str(parse_rule(rule))``.

    Raises:
        ValueError: there is no such metric or task; the message lists those there are.
    """
    match = _NAME.fullmatch(text)
    metric, rule = match.groups() if match else ("", None)
    if metric in RETRIEVAL_METRICS and rule is None:
        return MetricName(metric)
    if metric in RANKING_METRICS:
        task = tasks[0] if rule is None else _spelled_as_a_task(rule)
        if task in tasks:
            return MetricName(metric, task, of_several=len(tasks) > 1, taken_as_first=rule is None)
    raise ValueError(
        f"{text!r}; allowed: {', '.join((*RETRIEVAL_METRICS, *RANKING_METRICS))}; the last "
        f"{len(RANKING_METRICS)} of one task as {', '.join(metric_of_task('auc', task) for task in tasks)}"
    )


def named_metrics(table: Mapping[str, Any]) -> dict[str, Any]:
    """All metrics of one scorer side by side: ``hr@10`` …, and ``auc`` …, with several tasks ``auc[RULE]`` ….

    Args:
        table: ``{"retrieval": {metric: value}, "ranking": {task: {metric: value}}}``.
    """
    ranking = table["ranking"]
    named = dict(table["retrieval"])
    for task, metrics in ranking.items():
        for metric, value in metrics.items():
            named[metric if len(ranking) == 1 else metric_of_task(metric, task)] = value
    return named


def _spelled_as_a_task(rule: str) -> str | None:
    try:
        return str(parse_rule(rule))
    except ValueError:
        return None

"""What a reader must not overlook: where the model is below a baseline or an opponent, and which were left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unigrf_dist.evaluate.metrics import is_better

BASELINE_TITLES = {
    "popularity": "popularity",
    "most_recent": "most recent",
    "repeat_last": "repeat last items",
    "transition_knn": "transition kNN",
    "item_knn": "item kNN",
    "ease": "EASE",
    "user_item_mean": "user + item mean",
    "label_regression": "regression on means",
}
"""Titles of the scorers beside the model, by name."""

# The others say how probabilities are spread, not which scorer tells events apart.
_RANKING_METRICS = ("auc", "log_loss")

Record = Mapping[str, Any]
"""``MetricTable.to_dict()``."""


def below(model: Record, baselines: Mapping[str, Record]) -> list[str]:
    """A sentence for each scorer that is better than the model in some metric, with these metrics.

    Args:
        model: metrics of the model.
        baselines: metrics of the others, by name.
    """
    sentences = []
    for name, table in baselines.items():
        better = _better(model["retrieval"], table["retrieval"], tuple(model["retrieval"]))
        for task, metrics in table["ranking"].items():
            of_task = f" of {task}" if len(model["ranking"]) > 1 else ""
            found = _better(model["ranking"][task], metrics, _RANKING_METRICS)
            better += [f"{metric}{of_task}" for metric in found]
        if better:
            sentences.append(f"the model is below {BASELINE_TITLES.get(name, name)} in {', '.join(better)}")
    return sentences


def left_out(skipped: Mapping[str, str]) -> list[str]:
    """A sentence for each opponent that was not computed.

    Args:
        skipped: reasons by name.
    """
    return [f"no {BASELINE_TITLES.get(name, name)}: {reason}" for name, reason in skipped.items()]


def _better(model: Record, other: Record, metrics: tuple[str, ...]) -> list[str]:
    return [
        name
        for name in metrics
        if name in model and name in other and is_better(name, other[name]["value"], model[name]["value"])
    ]

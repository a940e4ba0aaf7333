"""Metrics that say little or nothing on a small catalogue, marked as such."""

from __future__ import annotations

from dataclasses import replace

from unigrf_dist.evaluate.metric import Metric

LARGE_SHARE = 0.25
"""Where a list holds at least this share of the catalogue, a hit says little: any order hits so often."""

_HIT_RATE = "hr@"


def marked_by_catalogue(metrics: dict[str, Metric], num_items: int) -> dict[str, Metric]:
    """The same metrics; hit rates of lists that hold the whole catalogue are undefined, those of long ones noted.

    Args:
        metrics: of retrieval, by name.
        num_items: items of the catalogue.
    """
    return {name: _marked(name, metric, num_items) for name, metric in metrics.items()}


def _marked(name: str, metric: Metric, num_items: int) -> Metric:
    if not name.startswith(_HIT_RATE):
        return metric
    length = int(name.removeprefix(_HIT_RATE))
    if length >= num_items:
        return Metric(None, reason=f"a list of {length} holds all {num_items} items")
    if length < LARGE_SHARE * num_items:
        return metric
    return replace(metric, note=f"{length} of {num_items:,} items: any order hits {length / num_items:.0%}")

"""Means over seeds and paired differences, with Student's intervals (Student, 1908)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unigrf_dist.study.metric_names import is_less_better

LEVEL = 0.95
Verdict = Literal["better", "worse", "undecided", "one seed"]


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        mean: mean of the values.
        deviation: their standard deviation, over ``count - 1``; None for a single value.
        half_width: half-width of the 95 % interval of the mean; None for a single value.
        count: number of values.
    """

    mean: float
    deviation: float | None
    half_width: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """A variant's metric minus the baseline's, paired by seed."""

    estimate: Estimate
    verdict: Verdict


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of at least one value; the interval takes the values as draws from one normal distribution."""
    from scipy.stats import sem, t

    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, None, None, count)
    half_width = float(t.ppf((1 + LEVEL) / 2, count - 1) * sem(values))
    return Estimate(mean, float(np.std(values, ddof=1)), half_width, count)


def paired_difference(
    metric: str, values: Mapping[int, float], baseline: Mapping[int, float]
) -> Difference | None:
    """Difference over the seeds that both have, by seed; None if there are none.

    Pairing takes out what a seed does to both: initial weights and the order of the data.
    """
    common = [seed for seed in values if seed in baseline]
    if not common:
        return None
    found = estimate([values[seed] - baseline[seed] for seed in common])
    return Difference(found, _verdict(found, less_is_better=is_less_better(metric)))


def _verdict(found: Estimate, *, less_is_better: bool) -> Verdict:
    if found.half_width is None:
        return "one seed"
    # The interval holds 0; equal values on all seeds make one of no width.
    if abs(found.mean) <= found.half_width:
        return "undecided"
    return "better" if (found.mean < 0) == less_is_better else "worse"

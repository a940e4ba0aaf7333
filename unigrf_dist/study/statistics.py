"""Means over seeds and paired differences, with Student's intervals (Student, 1908)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVEL = 0.95
LESS_IS_BETTER = ("log_loss", "ece")
Verdict = Literal["better", "worse", "undecided", "one seed"]


@dataclass(frozen=True)
class Estimate:
    """A mean and how surely it is known.

    Attributes:
        mean: of the values.
        deviation: their standard deviation with ``count - 1`` below; None of a single value.
        half_width: of the 95 % interval of the mean; None of a single value.
        count: number of values.
    """

    mean: float
    deviation: float | None
    half_width: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """A variant's figure minus the baseline's, paired by seed."""

    estimate: Estimate
    verdict: Verdict


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of at least one value; the interval takes the values as draws from one normal distribution."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, None, None, count)
    deviation = float(np.std(values, ddof=1))
    return Estimate(mean, deviation, t_quantile(count - 1) * deviation / math.sqrt(count), count)


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
    return Difference(found, _verdict(found, less_is_better=metric in LESS_IS_BETTER))


def t_quantile(degrees: float) -> float:
    """Quantile of Student's t for a two-sided interval at ``LEVEL``."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, degrees))


def _verdict(found: Estimate, *, less_is_better: bool) -> Verdict:
    if found.half_width is None:
        return "one seed"
    # The interval holds 0; equal values on all seeds make one of no width.
    if abs(found.mean) <= found.half_width:
        return "undecided"
    return "better" if (found.mean < 0) == less_is_better else "worse"

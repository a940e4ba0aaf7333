"""Confidence intervals by resampling users (Efron, 1979): percentiles over seeded resamples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.evaluate.metric import Metric

LEVEL = 0.95
# Elements of one block of counts: 2 MiB of float64. Blocks that fit the cache are twice as fast as 32 MiB.
_BLOCK_ELEMENTS = 1 << 18

Statistic = Callable[[Tensor], Tensor]
"""``[R, N]`` float64, how often each of ``N`` users is counted in each of ``R`` samples → ``[R, M]`` float64
values, NaN where a value is undefined for that sample."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        samples: resamples; 0 makes no intervals.
        seed: seed of the resamples; equal seeds give equal intervals, on any number of ranks.
    """

    samples: int = 1000
    seed: int = 0

    def metrics(self, statistic: Statistic, num_users: int) -> list[Metric]:
        """Value and interval of each of the ``M`` results of ``statistic``; NaN becomes None."""
        once = statistic(torch.ones(1, num_users, dtype=torch.float64))[0]
        if self.samples == 0:
            return [Metric(_number(value)) for value in once]
        resampled = torch.cat([statistic(counts) for counts in self._resamples(num_users)])
        tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
        # A resample without positives (or negatives) says nothing about the AUC, hence nan-quantile.
        low, high = resampled.nanquantile(tails, dim=0)
        return [
            Metric(None) if value.isnan() else Metric(_number(value), _number(low[i]), _number(high[i]))
            for i, value in enumerate(once)
        ]

    def _resamples(self, num_users: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        rows = max(1, _BLOCK_ELEMENTS // max(num_users, 1))
        for start in range(0, self.samples, rows):
            size = min(rows, self.samples - start)
            drawn = torch.randint(num_users, (size, num_users), generator=generator)
            drawn += torch.arange(size)[:, None] * num_users
            yield torch.bincount(drawn.flatten(), minlength=size * num_users).view(size, num_users).double()


def _number(value: Tensor) -> float | None:
    return None if value.isnan() else float(value)

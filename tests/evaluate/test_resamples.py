"""Resamples of users: drawn with replacement, in blocks of bounded size; intervals are quantiles of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unigrf_dist.evaluate.bootstrap import Bootstrap


class Recorder:
    """A statistic that keeps the counts it was asked for; its value is the count of user 0."""

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []

    def __call__(self, counts: Tensor) -> Tensor:
        self.blocks.append(counts)
        return counts[:, :1]


@pytest.mark.parametrize(
    ("num_users", "rows"),
    [(100_000, [1, 2, 2, 1]), (131_072, [1, 2, 2, 1]), (131_073, [1] * 6), (300_000, [1] * 6), (10, [1, 5])],
)
def test_blocks_hold_as_many_resamples_as_fit_and_one_at_least(num_users: int, rows: list[int]) -> None:
    recorder = Recorder()
    Bootstrap(samples=5).metrics(recorder, num_users)
    assert [tuple(block.shape) for block in recorder.blocks] == [(row, num_users) for row in rows]
    assert all(block.dtype == torch.float64 for block in recorder.blocks)
    drawn = torch.cat(recorder.blocks[1:])
    assert drawn.sum(1).tolist() == [num_users] * 5


def test_unless_told_otherwise_a_thousand_resamples_are_drawn_from_seed_zero() -> None:
    as_usual, spelled_out = Recorder(), Recorder()
    Bootstrap().metrics(as_usual, 4)
    Bootstrap(samples=1000, seed=0).metrics(spelled_out, 4)
    assert torch.equal(torch.cat(as_usual.blocks), torch.cat(spelled_out.blocks))


def test_users_are_drawn_with_replacement_and_alike() -> None:
    recorder = Recorder()
    Bootstrap(samples=400, seed=2).metrics(recorder, 50)
    counts = torch.cat(recorder.blocks[1:])
    # Of 20000 counts, (1 - 1/50)^50 = 36.4% are 0; each user comes 400 times, with a deviation of 20.
    assert float((counts == 0).double().mean()) == pytest.approx((1 - 1 / 50) ** 50, abs=0.015)
    assert counts.sum(0).tolist() == pytest.approx([400] * 50, abs=100)
    assert counts.unique(dim=0).shape[0] == 400


def test_the_interval_holds_nineteen_of_twenty_resamples() -> None:
    recorder = Recorder()
    (metric,) = Bootstrap(samples=1000).metrics(recorder, 400)
    count = torch.cat(recorder.blocks[1:])[:, 0].sort().values.tolist()
    # 2.5% and 97.5% of the way from the first to the last of 1000 values: indices 24.975 and 974.025.
    low = count[24] + 0.975 * (count[25] - count[24])
    high = count[974] + 0.025 * (count[975] - count[974])
    assert (metric.value, metric.low, metric.high) == pytest.approx((1.0, low, high))


def test_a_value_that_only_resamples_define_is_undefined_and_so_is_an_interval_without_any() -> None:
    def statistic(counts: Tensor) -> Tensor:
        is_whole = (counts == 1).all(1)
        first = torch.where(is_whole, math.nan, 2.0)
        second = torch.where(is_whole, 3.0, math.nan)
        return torch.stack([first, second], dim=1).double()

    first, second = Bootstrap(samples=20).metrics(statistic, 30)
    assert (first.value, first.low, first.high) == (None, None, None)
    assert (second.value, second.low, second.high) == (3.0, None, None)
    assert [metric.value for metric in Bootstrap(samples=0).metrics(statistic, 30)] == [None, 3.0]

"""Weighters: what they balance, how they start, and steps without a usable norm."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from unigrf_dist.config.schema import WeighterConfig
from unigrf_dist.objective.weighter import Weighter, build_weighter

ADAPTIVE = ["gradient", "descent_rate", "uncertainty"]
CPU = torch.device("cpu")


def weighter(strategy: str, **config: Any) -> Weighter:
    given = {"warmup_steps": 0, "smoothing": 0.9, "min_weight": 0.0, "window_steps": 5, **config}
    return build_weighter(WeighterConfig(strategy=strategy, **given), CPU)


def feed(built: Weighter, losses: list[float], norms: list[float], steps: int) -> torch.Tensor:
    for _ in range(steps):
        built.observe(torch.tensor(losses), torch.tensor(norms))
    return built.weights


def test_gradient_balances_the_weighted_norms() -> None:
    weights = feed(weighter("gradient", gamma=0.0), [6.0, 0.6], [0.03, 0.004], 200)
    assert torch.isclose(weights[0] * 0.03, weights[1] * 0.004, rtol=1e-3)


def test_gradient_honours_the_configured_proportion() -> None:
    weights = feed(weighter("gradient", gamma=0.0, retrieval=3.0), [6.0, 0.6], [0.03, 0.004], 300)
    assert torch.isclose(weights[0] * 0.03, 3 * weights[1] * 0.004, rtol=1e-3)


def test_gradient_favours_the_task_whose_loss_fell_less() -> None:
    built = weighter("gradient", gamma=1.0)
    feed(built, [6.0, 0.6], [1.0, 1.0], 1)
    weights = feed(built, [3.0, 0.6], [1.0, 1.0], 400)
    assert torch.isclose(weights[1] / weights[0], torch.tensor(2.0), rtol=1e-2)


def test_descent_rate_favours_the_task_whose_loss_falls_more_slowly() -> None:
    built = weighter("descent_rate", temperature=1.0, smoothing=0.0)
    feed(built, [6.0, 0.6], [1.0, 1.0], 5)
    weights = feed(built, [3.0, 0.6], [1.0, 1.0], 5)
    assert torch.allclose(weights, 2 * torch.softmax(torch.tensor([0.5, 1.0]), 0))


def test_a_higher_temperature_evens_out_descent_rates() -> None:
    built = weighter("descent_rate", temperature=4.0, smoothing=0.0)
    feed(built, [6.0, 0.6], [1.0, 1.0], 5)
    weights = feed(built, [3.0, 0.6], [1.0, 1.0], 5).tolist()
    # exp(1/2 / 4) and exp(1 / 4) as shares of 2.
    first, second = math.exp(0.125), math.exp(0.25)
    assert weights == pytest.approx([2 * first / (first + second), 2 * second / (first + second)], rel=1e-6)


def test_descent_rates_do_not_act_before_the_second_window_is_full() -> None:
    built = weighter("descent_rate", retrieval=3.0, smoothing=0.0)
    feed(built, [6.0, 0.6], [1.0, 1.0], 5)
    assert feed(built, [3.0, 0.6], [1.0, 1.0], 4).tolist() == [1.5, 0.5]
    assert feed(built, [3.0, 0.6], [1.0, 1.0], 1).tolist() != [1.5, 0.5]


@pytest.mark.parametrize("strategy", ["gradient", "descent_rate"])
def test_tasks_that_both_vanish_leave_weights_in_their_bounds(strategy: str) -> None:
    # Ranking has no share, and retrieval, whose loss fell to a thousandth, a proportion that float32 rounds to 0.
    built = weighter(strategy, ranking=0.0, gamma=20.0, temperature=0.005, smoothing=0.0, min_weight=0.25)
    feed(built, [6.0, 0.6], [1.0, 1.0], 5)
    weights = feed(built, [6e-3, 0.6], [1.0, 1.0], 5).tolist()
    assert all(0.25 <= weight <= 1.75 for weight in weights)
    assert sum(weights) == 2.0


def test_uncertainty_weighs_by_the_inverse_loss() -> None:
    weights = feed(weighter("uncertainty"), [6.0, 0.6], [1.0, 1.0], 200)
    assert torch.isclose(weights[1] / weights[0], torch.tensor(10.0), rtol=1e-3)


@pytest.mark.parametrize("strategy", [*ADAPTIVE, "static"])
def test_weights_start_from_the_configured_proportion_and_sum_to_two(strategy: str) -> None:
    built = weighter(strategy, retrieval=3.0, ranking=1.0, warmup_steps=3)
    assert built.weights.tolist() == [1.5, 0.5]
    assert feed(built, [6.0, 0.6], [0.03, 0.004], 3).tolist() == [1.5, 0.5]
    assert torch.isclose(feed(built, [5.0, 0.6], [0.03, 0.004], 20).sum(), torch.tensor(2.0))


@pytest.mark.parametrize(
    ("strategy", "ratio"), [("gradient", 0.03 / 0.01), ("uncertainty", 6.0 / 0.75), ("descent_rate", math.e**0.5)]
)
@pytest.mark.parametrize("warmup_steps", [0, 1, 3])
def test_the_weights_leave_their_start_with_the_first_step_after_warm_up(
    strategy: str, ratio: float, warmup_steps: int
) -> None:
    """Expected proportion ranking : retrieval, by the definition of each strategy, from two equal observations."""
    built = weighter(
        strategy, gamma=0.0, smoothing=0.0, warmup_steps=warmup_steps, window_steps=1, temperature=1.0
    )
    for step in range(1, warmup_steps + 1):
        assert feed(built, [6.0, 0.75], [0.03, 0.01], 1).tolist() == [1.0, 1.0], step
    if strategy == "descent_rate":
        if warmup_steps == 0:
            feed(built, [6.0, 0.75], [0.03, 0.01], 1)
        weights = feed(built, [3.0, 0.75], [0.03, 0.01], 1)  # loss ratios 1/2 and 1
    else:
        weights = feed(built, [6.0, 0.75], [0.03, 0.01], 1)
    assert float(weights[1] / weights[0]) == pytest.approx(ratio, rel=1e-5)


def test_weights_follow_the_proportions_by_an_exponential_mean() -> None:
    built = weighter("uncertainty", smoothing=0.75)
    # Proportions are 1/3 : 1, as shares of 2 (0.5, 1.5); from (1, 1) on, a quarter of the way each step.
    assert feed(built, [3.0, 1.0], [1.0, 1.0], 1).tolist() == pytest.approx([0.875, 1.125], rel=1e-6)
    assert feed(built, [3.0, 1.0], [1.0, 1.0], 1).tolist() == pytest.approx([0.78125, 1.21875], rel=1e-6)


@pytest.mark.parametrize(
    ("norms", "bounds"), [([1.0, 1e-4], [0.3, 1.7]), ([1e-4, 1.0], [1.7, 0.3])], ids=["retrieval", "ranking"]
)
def test_no_weight_falls_below_the_least(norms: list[float], bounds: list[float]) -> None:
    weights = feed(weighter("gradient", min_weight=0.3), [6.0, 0.6], norms, 200)
    assert torch.allclose(weights, torch.tensor(bounds))


@pytest.mark.parametrize("strategy", ADAPTIVE)
@pytest.mark.parametrize(
    ("losses", "norms"),
    [([6.0, 0.0], [0.03, 0.0]), ([6.0, 0.6], [0.03, float("nan")]), ([6.0, 0.6], [0.03, float("inf")])],
    ids=["missing", "nan", "infinite"],
)
def test_a_task_without_a_usable_norm_is_not_learnt_from(
    strategy: str, losses: list[float], norms: list[float]
) -> None:
    built, other = weighter(strategy), weighter(strategy)
    for one in (built, other):
        feed(one, [6.0, 0.6], [0.03, 0.004], 30)
    feed(built, losses, norms, 5)
    feed(other, [6.0, 0.6], [0.03, 0.004], 5)
    assert torch.isfinite(built.weights).all()
    # The values that did arrive are those of before, so nothing else than the missing ones could differ.
    assert torch.allclose(built.weights, other.weights, rtol=1e-4)


@pytest.mark.parametrize("strategy", ADAPTIVE)
def test_a_task_that_never_comes_leaves_the_proportion_finite(strategy: str) -> None:
    weights = feed(weighter(strategy), [6.0, 0.0], [0.03, 0.0], 50)
    assert torch.isfinite(weights).all()
    assert torch.isclose(weights.sum(), torch.tensor(2.0))


@pytest.mark.parametrize("strategy", ADAPTIVE)
@pytest.mark.parametrize("absent", [0, 1])
def test_until_both_tasks_were_seen_the_proportion_is_the_configured_one(strategy: str, absent: int) -> None:
    losses, norms = [6.0, 0.6], [0.03, 0.004]
    losses[absent], norms[absent] = math.nan, math.nan
    built = weighter(strategy, retrieval=3.0, smoothing=0.0, temperature=1.0)
    # Descent rates need two windows, and the loss of the other task falls.
    feed(built, losses, norms, 5)
    losses[1 - absent] /= 8
    weights = feed(built, losses, norms, 5)
    if strategy != "descent_rate":
        assert weights.tolist() == [1.5, 0.5]
    else:  # the absent task counts as one whose loss stays
        falls, stays = math.exp(1 / 8), math.exp(1)
        terms = [3 * falls, stays] if absent else [3 * stays, falls]
        assert weights.tolist() == pytest.approx([2 * term / sum(terms) for term in terms], rel=1e-6)


@pytest.mark.parametrize("strategy", ADAPTIVE)
def test_a_restored_weighter_goes_on_bit_equal(strategy: str) -> None:
    generator = torch.Generator().manual_seed(1)
    steps = [torch.rand(2, 2, generator=generator) + 0.1 for _ in range(40)]
    through, first, second = (weighter(strategy, warmup_steps=4) for _ in range(3))
    for losses, norms in steps:
        through.observe(losses, norms)
    for losses, norms in steps[:17]:
        first.observe(losses, norms)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for losses, norms in steps[17:]:
        second.observe(losses, norms)
    assert torch.equal(through.weights, second.weights)

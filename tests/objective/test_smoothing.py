"""Running means against their definition in plain Python, and windows worked by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from unigrf_dist.objective.smoothing import SmoothedMean, WindowMeans

CPU = torch.device("cpu")
NAN = math.nan

# Two tasks; None: the step has no value of that task.
Steps = list[tuple[float | None, float | None]]


def add(mean: SmoothedMean | WindowMeans, steps: Steps, missing: float = NAN) -> None:
    """Add ``steps``; what stands for an absent value must not matter."""
    for step in steps:
        values = torch.tensor([missing if value is None else value for value in step])
        mean.add(values, torch.tensor([value is not None for value in step]))


def weighted_mean(values: list[float], keep: float) -> float:
    """Mean with weight ``keep^age``, the age counted in values and not in steps."""
    weights = [keep**age for age in reversed(range(len(values)))]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_smoothed_mean_weighs_each_value_by_its_age(keep: float) -> None:
    values = [4.0, 8.0, 0.25, 3.0]
    mean = SmoothedMean(keep, 2, CPU)
    for num in range(1, len(values) + 1):
        add(mean, [(values[num - 1], 2 * values[num - 1])])
        expected = weighted_mean(values[:num], keep)
        assert mean.mean.tolist() == pytest.approx([expected, 2 * expected], rel=1e-6)


def test_the_first_value_is_the_mean_without_bias_however_small_its_weight() -> None:
    mean = SmoothedMean(0.98, 2, CPU)
    add(mean, [(6.0, 0.5)])
    assert mean.mean.tolist() == pytest.approx([6.0, 0.5], rel=1e-6)
    # 1 and 4 with weights 1 and 2.
    mean = SmoothedMean(0.5, 1, CPU)
    for value in (1.0, 4.0):
        mean.add(torch.tensor([value]), torch.tensor([True]))
    assert mean.mean.item() == 3.0


def test_without_a_value_the_mean_is_one_and_not_started() -> None:
    mean = SmoothedMean(0.5, 2, CPU)
    assert (mean.started.tolist(), mean.mean.tolist(), mean.first.tolist()) == ([False, False], [1, 1], [1, 1])
    add(mean, [(None, 7.0)])
    assert (mean.started.tolist(), mean.mean.tolist(), mean.first.tolist()) == ([False, True], [1, 7], [1, 7])


@pytest.mark.parametrize("missing", [NAN, math.inf, 1e30])
def test_a_step_without_a_tasks_value_leaves_its_mean_alone(missing: float) -> None:
    mean = SmoothedMean(0.5, 2, CPU)
    add(mean, [(None, 2.0), (4.0, None), (None, None), (8.0, 6.0), (None, 1.0)], missing)
    # Task 0: 4 and 8 weigh 1 and 2; task 1: 2, 6 and 1 weigh 1, 2 and 4.
    assert mean.mean.tolist() == pytest.approx([20 / 3, 18 / 7], rel=1e-6)
    assert mean.first.tolist() == [4.0, 2.0]


def test_a_value_of_zero_starts_a_mean() -> None:
    mean = SmoothedMean(0.5, 2, CPU)
    add(mean, [(0.0, 0.0), (3.0, None)])
    assert mean.started.tolist() == [True, True]
    assert (mean.mean.tolist(), mean.first.tolist()) == ([2.0, 0.0], [0.0, 0.0])


def test_before_two_windows_are_full_the_ratio_is_one() -> None:
    windows = WindowMeans(3, 2, CPU)
    for step in [(2.0, 9.0), (4.0, 3.0), (6.0, 3.0), (1.0, 1.0), (1.0, 1.0)]:
        assert windows.ratio.tolist() == [1.0, 1.0]
        add(windows, [step])
    assert windows.ratio.tolist() == [1.0, 1.0]
    add(windows, [(4.0, 8.0)])
    # Means 4 and 5, then 2 and 10/3.
    assert windows.ratio.tolist() == pytest.approx([1 / 2, 2 / 3], rel=1e-6)


def test_windows_of_one_step_compare_neighbouring_steps() -> None:
    windows = WindowMeans(1, 2, CPU)
    ratios = []
    for step in [(2.0, 1.0), (1.0, 3.0), (4.0, 3.0)]:
        add(windows, [step])
        ratios.append(windows.ratio.tolist())
    assert ratios == [[1.0, 1.0], [0.5, 3.0], [4.0, 1.0]]


@pytest.mark.parametrize("missing", [NAN, math.inf, 1e30])
def test_windows_average_over_the_steps_that_have_a_value(missing: float) -> None:
    windows = WindowMeans(3, 2, CPU)
    ratios = []
    given: list[Steps] = [
        [(2.0, None), (4.0, 0.5), (6.0, None)],  # means 4 and 0.5, the latter of one value
        [(1.0, None), (None, None), (2.0, None)],  # 1.5 and none: task 1 keeps its ratio and its 0.5
        [(3.0, 1.0), (3.0, 3.0), (3.0, 2.0)],  # 3 and 2
        [(None, None), (None, 3.0), (None, None)],  # none and 3: task 0 keeps its ratio and its 3
        [(12.0, 3.0), (None, 6.0), (None, None)],  # 12 and 4.5
    ]
    for window in given:
        add(windows, window, missing)
        ratios.append(windows.ratio.tolist())
    assert ratios == [[1.0, 1.0], [0.375, 1.0], [2.0, 4.0], [2.0, 1.5], [4.0, 1.5]]


def test_a_task_that_comes_late_has_no_ratio_before_its_second_window() -> None:
    windows = WindowMeans(2, 2, CPU)
    add(windows, [(1.0, None), (1.0, None), (1.0, 8.0), (1.0, 8.0)])
    assert windows.ratio.tolist() == [1.0, 1.0]
    add(windows, [(1.0, 6.0), (1.0, 2.0)])
    assert windows.ratio.tolist() == [1.0, 0.5]


def test_a_ratio_to_almost_nothing_is_finite() -> None:
    windows = WindowMeans(1, 1, CPU)
    for value in (1e-40, 1.0):  # their quotient is no float32
        windows.add(torch.tensor([value]), torch.tensor([True]))
    assert windows.ratio.tolist() == pytest.approx([1e12])


def drawn_steps(num: int, seed: int) -> Steps:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(num, 2, generator=generator).tolist()
    present = (torch.rand(num, 2, generator=generator) < 0.7).tolist()
    return [
        (a if has_a else None, b if has_b else None)
        for (a, b), (has_a, has_b) in zip(values, present, strict=True)
    ]


@pytest.mark.parametrize("kind", ["smoothed", "windows"])
@pytest.mark.parametrize("cut", [0, 1, 13, 14, 15])
def test_a_restored_mean_goes_on_bit_equal(kind: str, cut: int) -> None:
    def new() -> SmoothedMean | WindowMeans:
        return SmoothedMean(0.9, 2, CPU) if kind == "smoothed" else WindowMeans(5, 2, CPU)

    steps = drawn_steps(32, seed=3)
    through, until, restored = new(), new(), new()
    add(through, steps)
    add(until, steps[:cut])
    add(restored, steps[20:28])  # what a restored mean held before is gone
    state = json.loads(json.dumps(until.state_dict()))
    restored.load_state_dict(state)
    assert restored.state_dict() == until.state_dict() == state
    for step in steps[cut:]:
        add(until, [step])
        add(restored, [step])
        assert restored.state_dict() == until.state_dict()
    assert restored.state_dict() == through.state_dict()
    if isinstance(through, WindowMeans):
        assert torch.equal(restored.ratio, through.ratio)  # type: ignore[union-attr]
    else:
        assert torch.equal(restored.mean, through.mean)  # type: ignore[union-attr]

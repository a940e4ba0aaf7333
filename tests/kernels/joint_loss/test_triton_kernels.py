"""The Triton kernels: compiled where there is a GPU, else in Triton's interpreter on CPU tensors."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from unigrf_kernels.ops.joint_loss import triton_path
from unigrf_kernels.ops.joint_loss.schedule import Schedule, choose_schedule

from .cases import (
    CASES,
    DEVICE,
    DIFFERENTIABLE,
    EVERYTHING,
    Case,
    assert_as_exact_as_plain_pytorch,
    drawn_cases,
    make_inputs,
    run,
)

pytestmark = pytest.mark.usefixtures("chip_arithmetic")

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case: Case) -> None:
    assert_as_exact_as_plain_pytorch(make_inputs(case), "triton")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["everything", "cold", "off-tile", "everything-raw", "sixteen-tasks"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    assert_as_exact_as_plain_pytorch(make_inputs(BY_NAME[name], dtype), "triton")


@given(case=drawn_cases(24), seed=st.integers(0, 2**31))
@settings(max_examples=40, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_any_shape(case: Case, seed: int) -> None:
    assert_as_exact_as_plain_pytorch(make_inputs(case, seed=seed), "triton")


@pytest.mark.parametrize("width", [1, 128, 300, 512])
def test_widths_of_other_tiles(width: int) -> None:
    case = dataclasses.replace(EVERYTHING, D=width, P=9, K=21, R=6, normalize=width > 1)
    assert_as_exact_as_plain_pytorch(make_inputs(case), "triton")


@pytest.fixture
def split_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many programs: columns and pairs are split and their partial results joined."""

    def schedule(arch: str, dtype: torch.dtype, width: int, *, num_processors: int) -> Schedule:
        return choose_schedule(arch, dtype, width, num_processors=5)

    monkeypatch.setattr(triton_path, "choose_schedule", schedule)


@pytest.mark.parametrize("case", [dataclasses.replace(EVERYTHING, P=150, K=200), BY_NAME["off-tile"]], ids=str)
def test_split_columns_and_pairs(case: Case, split_work: None, poisoned_memory: None) -> None:
    assert_as_exact_as_plain_pytorch(make_inputs(case), "triton")


@pytest.mark.parametrize("name", ["everything", "shared-rows", "no-pairs", "no-ranking", "only-user-negatives"])
def test_memory_nobody_wrote_is_never_read(name: str, poisoned_memory: None) -> None:
    for result, value in run(make_inputs(BY_NAME[name]), "triton").items():
        assert not value.isnan().any(), result


@pytest.mark.parametrize("needed", DIFFERENTIABLE)
def test_each_gradient_alone(needed: str, poisoned_memory: None) -> None:
    inputs = make_inputs(EVERYTHING)
    alone, together = run(inputs, "triton", (needed,)), run(inputs, "triton")
    for name in alone.keys() - {"retrieval_sq_norm", "ranking_sq_norm"}:
        # A chip runs other instructions for one gradient than for all, which may round otherwise.
        bound = 2e-6 if DEVICE.type == "cuda" else 0.0
        torch.testing.assert_close(alone[name], together[name], rtol=bound, atol=bound, msg=name)
    assert bool(alone["retrieval_sq_norm"].isnan()) == (needed != "hidden")


def test_repeats_are_bit_equal(split_work: None) -> None:
    inputs = make_inputs(dataclasses.replace(EVERYTHING, P=90, K=150, num_rows=7))
    first, second = run(inputs, "triton"), run(inputs, "triton")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_strided_inputs() -> None:
    inputs = make_inputs(EVERYTHING)
    strided = dict(inputs)
    for name in (*DIFFERENTIABLE, "labels", "positive_ids", "negative_mask"):
        wide = torch.stack([inputs[name], torch.zeros_like(inputs[name])], dim=-1)
        strided[name] = wide[..., 0]
        assert not strided[name].is_contiguous()
    expected, actual = run(inputs, "triton"), run(strided, "triton")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("width", [50, 64, 128, 256, 512])
def test_sizes_of_training(width: int, dtype: torch.dtype) -> None:
    case = Case(T=9000, P=4001, K=3001, D=width, R=4000, U=300, V=4001, M=8, mask=True, weights=True, num_ids=4000)
    assert_as_exact_as_plain_pytorch(make_inputs(case, dtype), "triton")


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_long_vectors_are_normalised(implementation: str) -> None:
    """Squares of 1e20 are infinite in fp32; only directions count, so the losses are those of short vectors."""
    inputs = make_inputs(BY_NAME["everything"])
    names = ("positives", "negatives", "user_negatives")
    large = {**inputs, **{name: inputs[name] * 1e20 for name in names}}
    actual = run(large, implementation)
    for name, expected in run(inputs, implementation).items():
        shrink = 1e20 if name.removeprefix("grad ") in names else 1.0
        torch.testing.assert_close(actual[name] * shrink, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_more_users_than_a_second_grid_axis_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's second and third axis end at 65,535 programs; users must lie along the first."""
    grids = []
    monkeypatch.setattr(triton_path, "launch", lambda kernel, grid, *_: grids.append(grid))
    case = dataclasses.replace(EVERYTHING, U=70_000, M=1, D=2)
    run(make_inputs(case), "triton")
    assert any(70_000 in grid for grid in grids)
    assert all(size <= 65_535 for grid in grids for size in grid[1:])

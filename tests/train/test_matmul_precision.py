"""Shorter factors: in training steps and nowhere else."""

from __future__ import annotations

import torch

from tests.spawn import run_ranks
from tests.train.small_run import global_batch, join, small_config, small_step
from unigrf_dist.train.matmul_precision import matmul_precision


def test_the_precision_of_before_comes_back_even_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        with matmul_precision("medium"):
            assert torch.get_float32_matmul_precision() == "medium"
            raise KeyError
    except KeyError:
        pass
    assert torch.get_float32_matmul_precision() == before


def precision_inside_and_after() -> tuple[str, str]:
    step = small_step(small_config(2, train__matmul_precision="medium"))
    seen = []
    step.engine.module.register_forward_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    step(join(global_batch(0, [5, 3])), 0)
    return seen[0], torch.get_float32_matmul_precision()


def test_a_step_multiplies_as_configured_and_what_comes_after_it_exactly() -> None:
    assert run_ranks(1, precision_inside_and_after) == [("medium", "highest")]

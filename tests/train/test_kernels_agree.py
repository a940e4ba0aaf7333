"""Training with Triton kernels gives the losses of training without them (interpreted where there is no GPU)."""

from __future__ import annotations

import torch

from tests.kernels.interpreter import patch_language_once
from tests.spawn import run_ranks
from tests.train.small_run import global_batch, join, small_config, small_step

LENGTHS = [7, 0, 11, 1, 4]


def trace(kernel: str) -> torch.Tensor:
    """``[3, 5]`` loss, task losses and gradient norms of three steps on one batch."""
    patch_language_once()  # ranks see no GPU
    step = small_step(small_config(2, kernel=kernel, model__dropout=0.2))
    outcomes = [step(join(global_batch(0, LENGTHS)), number) for number in range(3)]
    return torch.stack([torch.cat([o.loss[None], o.losses, o.grad_norms]) for o in outcomes])


def test_triton_and_torch_train_alike() -> None:
    (by_torch,) = run_ranks(1, trace, "torch")
    (by_triton,) = run_ranks(1, trace, "triton")
    assert by_torch[2, 0] < by_torch[0, 0]
    torch.testing.assert_close(by_triton, by_torch, rtol=2e-4, atol=1e-5)

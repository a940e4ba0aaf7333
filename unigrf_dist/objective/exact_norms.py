"""The tasks' gradient norms at shared parameters, measured now and then to check the free estimate.

GradNorm's own measure. It costs another forward, and a backward through the loss and the last block per task,
so no weight rests on it: weights come from the norms at the hidden states, which the loss returns for free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


class ExactNorms:
    """Norms at ``parameters`` every ``every_steps`` steps.

    Args:
        parameters: parameters of the last block, which both tasks share; whole on every rank (ZeRO stages 0 to 2).
        every_steps: steps between two measurements; None for never.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], every_steps: int | None) -> None:
        self._parameters, self._every_steps = list(parameters), every_steps

    def measure(self, step: int, forward: Callable[[], Sequence[Tensor]], counts: Tensor) -> Tensor | None:
        """``[2]`` norms of the global mean losses' gradients at step ``step``, or None; collective.

        The gradients are asked for, not accumulated, and in a graph of their own: the engine takes any
        gradient that flows through its own outputs for the step's backward.

        Args:
            step: step of the run, from 0.
            forward: the model's own forward, past the engine; its first two results are both tasks' loss sums.
            counts: ``[2]`` positions over all ranks that the sums run over.
        """
        if self._every_steps is None or step % self._every_steps:
            return None
        retrieval, ranking, *_ = forward()
        gradients = torch.stack([self._gradient(retrieval), self._gradient(ranking)])
        dist.all_reduce(gradients)
        return torch.linalg.vector_norm(gradients, dim=1) / counts

    def _gradient(self, loss: Tensor) -> Tensor:
        parts = torch.autograd.grad(loss, self._parameters, retain_graph=True, materialize_grads=True)
        return torch.cat([part.flatten().float() for part in parts])

"""Running means per task; a step may lack a task's value. Kept on the device, saved as plain numbers."""

from __future__ import annotations

import torch
from torch import Tensor

State = dict[str, list[float]]


class SmoothedMean:
    """Exponential mean of ``[num_tasks]`` values, without the bias of its start (Adam's correction).

    Args:
        keep: share of the old mean in the new one, in ``[0, 1)``.
        num_tasks: number of values per step.
        device: device of the values.
    """

    def __init__(self, keep: float, num_tasks: int, device: torch.device) -> None:
        self._keep = keep
        self._sum = torch.zeros(num_tasks, device=device)
        self._weight = torch.zeros(num_tasks, device=device)
        self.first = torch.ones(num_tasks, device=device)

    @property
    def started(self) -> Tensor:
        """``[num_tasks]`` bool, whether a value was added."""
        return self._weight > 0

    @property
    def mean(self) -> Tensor:
        """``[num_tasks]``; 1 where nothing was added."""
        return torch.where(self.started, self._sum / self._weight.clamp_min(1e-12), 1.0)

    def add(self, values: Tensor, valid: Tensor) -> None:
        """Add ``values`` where ``valid``."""
        self.first = torch.where(valid & ~self.started, values, self.first)
        mixed = self._keep * self._sum + (1.0 - self._keep) * values
        weight = self._keep * self._weight + (1.0 - self._keep)
        self._sum = torch.where(valid, mixed, self._sum)
        self._weight = torch.where(valid, weight, self._weight)

    def state_dict(self) -> State:
        return {"sum": self._sum.tolist(), "weight": self._weight.tolist(), "first": self.first.tolist()}

    def load_state_dict(self, state: State) -> None:
        self._sum, self._weight, self.first = (
            torch.tensor(state[name], device=self.first.device) for name in ("sum", "weight", "first")
        )


class WindowMeans:
    """Means of ``[num_tasks]`` values over consecutive windows of steps.

    Args:
        steps: length of a window in steps.
        num_tasks: number of values per step.
        device: device of the values.
    """

    def __init__(self, steps: int, num_tasks: int, device: torch.device) -> None:
        self._steps, self._step = steps, 0
        self._sum, self._count, self._before = (torch.zeros(num_tasks, device=device) for _ in range(3))
        self.ratio = torch.ones(num_tasks, device=device)

    def add(self, values: Tensor, valid: Tensor) -> None:
        """Add ``values`` where ``valid``; a full window sets ``ratio``, its mean over that of the one before."""
        self._sum = self._sum + torch.where(valid, values, 0.0)
        self._count = self._count + valid
        self._step += 1
        if self._step < self._steps:
            return
        mean = self._sum / self._count.clamp_min(1.0)
        # A task without values in either window keeps its ratio.
        both = (self._count > 0) & (self._before > 0)
        self.ratio = torch.where(both, mean / self._before.clamp_min(1e-12), self.ratio)
        self._before = torch.where(self._count > 0, mean, self._before)
        self._step, self._sum, self._count = 0, torch.zeros_like(mean), torch.zeros_like(mean)

    def state_dict(self) -> State:
        tensors = (self._sum, self._count, self._before, self.ratio)
        return {
            "step": [self._step],
            **{name: t.tolist() for name, t in zip(_WINDOW_NAMES, tensors, strict=True)},
        }

    def load_state_dict(self, state: State) -> None:
        self._step = int(state["step"][0])
        self._sum, self._count, self._before, self.ratio = (
            torch.tensor(state[name], device=self.ratio.device) for name in _WINDOW_NAMES
        )


_WINDOW_NAMES = ("sum", "count", "before", "ratio")

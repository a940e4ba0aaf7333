"""Balances the two tasks: from their global mean losses and gradient norms to one weight each.

A weighter sees only values that are already reduced over all ranks, and computes without randomness, so its
weights are bit-identical everywhere. Step ``t`` is weighted by what was observed up to step ``t - 1``: the
observation of step ``t`` is being reduced while its backward runs. Task order, here and wherever tasks are
stacked: retrieval, ranking.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from unigrf_dist.config.schema import WeighterConfig
from unigrf_dist.objective.smoothing import SmoothedMean, WindowMeans
from unigrf_dist.objective.tasks import TASKS

NUM_TASKS = len(TASKS)


class Weighter(Protocol):
    """The interface of every strategy.

    Attributes:
        weights: ``[2]`` fp32, of the coming step; they sum to 2.
    """

    weights: Tensor

    def observe(self, losses: Tensor, grad_norms: Tensor) -> None:
        """Observe a finished step.

        A task that had no example on any rank, or whose norm is not finite, is left out of that step's
        observation.

        Args:
            losses: ``[2]`` fp32, global mean loss of each task.
            grad_norms: ``[2]`` fp32, norm of each mean loss's gradient with respect to the hidden states.
        """

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go on bit-equal; plain numbers, for JSON."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class StaticWeighter:
    """The configured proportion, unchanged."""

    def __init__(self, config: WeighterConfig, device: torch.device) -> None:
        self.weights = configured_weights(config, device)

    def observe(self, losses: Tensor, grad_norms: Tensor) -> None:
        """Nothing to observe: the proportion is configuration."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class AdaptiveWeighter:
    """What the learning strategies share: warm-up, smoothing and bounds of the weights.

    A strategy turns what it observed into proportions. The weights follow those by an exponential mean,
    from the configured proportion on, and stay in ``[min_weight, 2 - min_weight]``.
    """

    def __init__(self, config: WeighterConfig, device: torch.device) -> None:
        self.config = config
        self.prior = configured_weights(config, device)
        self.weights = self.prior.clone()
        self._steps = 0

    def observe(self, losses: Tensor, grad_norms: Tensor) -> None:
        observed = torch.isfinite(losses) & torch.isfinite(grad_norms) & (grad_norms > 0)
        proportions = self._proportions(losses, grad_norms, observed)
        self._steps += 1
        if self._steps <= self.config.warmup_steps:
            return
        # The floor keeps a proportion between tasks that both vanish.
        proportions = NUM_TASKS * proportions / proportions.sum().clamp_min(torch.finfo(torch.float32).tiny)
        keep = self.config.smoothing
        mixed = keep * self.weights + (1.0 - keep) * proportions
        least = self.config.min_weight
        first = mixed[:1].clamp(least, NUM_TASKS - least)
        self.weights = torch.cat([first, NUM_TASKS - first])

    def _proportions(self, losses: Tensor, grad_norms: Tensor, observed: Tensor) -> Tensor:
        """``[2]`` proportions of the tasks, positive and finite; updates what the strategy remembers."""
        raise NotImplementedError

    def _memory(self) -> dict[str, Any]:
        """The strategy's own parts that have a state."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        parts = {name: part.state_dict() for name, part in self._memory().items()}
        return {"steps": self._steps, "weights": self.weights.tolist(), **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
        self.weights = torch.tensor(state["weights"], device=self.weights.device)
        for name, part in self._memory().items():
            part.load_state_dict(state[name])


class GradientWeighter(AdaptiveWeighter):
    """``w_a G_a ∝ prior_a r_a^gamma``: balanced gradients, more of them for the task that lags behind.

    ``G_a`` is the smoothed gradient norm at the hidden states and ``r_a`` the relative inverse training rate:
    the smoothed loss over its first value, divided by the mean of both tasks (GradNorm, Chen et al., ICML 2018,
    section 3.2, solved in closed form at the hidden states instead of descended to).
    """

    def __init__(self, config: WeighterConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self._norms = SmoothedMean(config.smoothing, NUM_TASKS, device)
        self._losses = SmoothedMean(config.smoothing, NUM_TASKS, device)

    def _proportions(self, losses: Tensor, grad_norms: Tensor, observed: Tensor) -> Tensor:
        self._norms.add(grad_norms, observed)
        self._losses.add(losses, observed)
        started = self._norms.started
        rate = torch.where(started, self._losses.mean / self._losses.first, 1.0)
        proportions = self.prior * (rate / rate.mean()) ** self.config.gamma / self._norms.mean
        # Until both tasks were seen there is nothing to balance.
        return torch.where(started.all(), proportions, self.prior)

    def _memory(self) -> dict[str, Any]:
        return {"norms": self._norms, "losses": self._losses}


class DescentRateWeighter(AdaptiveWeighter):
    """``w_a = prior_a softmax_a((L_a(t - 1) / L_a(t - 2)) / T)`` over windows of steps.

    Dynamic weight average (Liu et al., CVPR 2019, equation 7): the task whose loss falls more slowly gets more.
    """

    def __init__(self, config: WeighterConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self._windows = WindowMeans(config.window_steps, NUM_TASKS, device)

    def _proportions(self, losses: Tensor, grad_norms: Tensor, observed: Tensor) -> Tensor:
        self._windows.add(losses, observed)
        return self.prior * torch.softmax(self._windows.ratio / self.config.temperature, dim=0)

    def _memory(self) -> dict[str, Any]:
        return {"windows": self._windows}


class UncertaintyWeighter(AdaptiveWeighter):
    """``w_a ∝ prior_a / L_a``, the optimum of homoscedastic uncertainty weighting.

    Kendall et al. (CVPR 2018, equation 10) learn ``s_a`` with ``sum_a exp(-s_a) L_a + s_a``, which for a given
    mean loss is least at ``s_a = log L_a``. The smoothed loss stands for it: no parameter has to be learnt.
    """

    def __init__(self, config: WeighterConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self._losses = SmoothedMean(config.smoothing, NUM_TASKS, device)

    def _proportions(self, losses: Tensor, grad_norms: Tensor, observed: Tensor) -> Tensor:
        self._losses.add(losses, observed)
        proportions = self.prior / self._losses.mean
        return torch.where(self._losses.started.all(), proportions, self.prior)

    def _memory(self) -> dict[str, Any]:
        return {"losses": self._losses}


def configured_weights(config: WeighterConfig, device: torch.device) -> Tensor:
    """``[2]``, the configuration's proportion as weights that sum to 2."""
    weights = torch.tensor([config.retrieval, config.ranking], device=device)
    return weights * (NUM_TASKS / weights.sum())


def build_weighter(config: WeighterConfig, device: torch.device) -> Weighter:
    """The strategy that ``config.strategy`` names."""
    strategies: dict[str, type[StaticWeighter] | type[AdaptiveWeighter]] = {
        "static": StaticWeighter,
        "gradient": GradientWeighter,
        "descent_rate": DescentRateWeighter,
        "uncertainty": UncertaintyWeighter,
    }
    return strategies[config.strategy](config, device)

"""Balances the two tasks: from their global mean losses and gradient norms to one weight each.

A weighter sees only values that are already reduced over all ranks, and computes without randomness, so its
weights are bit-identical everywhere. Task order, here and wherever tasks are stacked: retrieval, ranking.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from unigrf_dist.config.schema import WeighterConfig

NUM_TASKS = 2


class Weighter(Protocol):
    """The interface of every strategy."""

    def update(self, losses: Tensor, grad_norms: Tensor) -> Tensor:
        """The weights of this step.

        Args:
            losses: ``[2]`` fp32, global mean loss of each task.
            grad_norms: ``[2]`` fp32, norm of each mean loss's gradient with respect to the hidden states.

        Returns:
            ``[2]`` fp32 weights that sum to 2.
        """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class StaticWeighter:
    """The configured proportion, unchanged."""

    def __init__(self, config: WeighterConfig, device: torch.device) -> None:
        weights = torch.tensor([config.retrieval, config.ranking], device=device)
        self._weights = weights * (NUM_TASKS / weights.sum())

    def update(self, losses: Tensor, grad_norms: Tensor) -> Tensor:
        return self._weights

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: the proportion is configuration."""


def build_weighter(config: WeighterConfig, device: torch.device) -> Weighter:
    """The strategy that ``config.strategy`` names."""
    return {"static": StaticWeighter}[config.strategy](config, device)

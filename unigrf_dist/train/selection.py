"""Which validation is the best one, and when to give up waiting for a better."""

from __future__ import annotations

from typing import Any

from unigrf_dist.config.schema import SelectionConfig
from unigrf_dist.errors import UserError
from unigrf_dist.train.checkpoint import TrainState

_LESS_IS_BETTER = ("log_loss",)


class Selection:
    """Compares validations by ``config.metric``: a retrieval figure, or a ranking figure of the first task."""

    def __init__(self, config: SelectionConfig) -> None:
        self.config = config

    def note(self, state: TrainState, metrics: dict[str, Any]) -> bool:
        """Take in a validation; True when it is the best so far.

        Raises:
            UserError: there is no such figure; the message lists those there are.
        """
        value = self._value(metrics)
        sign = -1 if self.config.metric in _LESS_IS_BETTER else 1
        better = not state.best or sign * value > sign * state.best["value"]
        if better:
            state.best = {"value": value, "step": state.step, "epoch": state.epoch}
        state.validations_without_gain = 0 if better else state.validations_without_gain + 1
        return better

    def exhausted(self, state: TrainState) -> bool:
        """Whether patience is at its end."""
        return self.config.patience is not None and state.validations_without_gain >= self.config.patience

    def _value(self, metrics: dict[str, Any]) -> float:
        known = {**next(iter(metrics["ranking"].values())), **metrics["retrieval"]}
        value = known.get(self.config.metric)
        if value is None:
            there = ", ".join(name for name, metric in known.items() if metric is not None)
            raise UserError(
                f"train.selection.metric = {self.config.metric!r}: no such figure here; there are: {there}"
            )
        return float(value)

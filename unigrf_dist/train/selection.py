"""Which validation is the best one, and when to give up waiting for a better."""

from __future__ import annotations

from unigrf_dist.config import Config
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.metric import Metric, MetricTable
from unigrf_dist.evaluate.metric_names import named_metrics
from unigrf_dist.evaluate.metrics import is_better
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.checks import selection_metric


class Selection:
    """Compares validations by ``train.selection.metric``.

    Args:
        config: configuration of the run.
    """

    def __init__(self, config: Config) -> None:
        self.metric = selection_metric(config)
        self._patience = config.train.selection.patience

    def note(self, state: TrainState, table: MetricTable) -> bool:
        """Take in a validation; True when it is the best so far.

        A value that the model left undefined (NaN) is no gain. One that the validation events can not define,
        such as the AUC where all labels are positive, would pick no model ever.

        Args:
            state: state of the run after the validation's epoch; its best validation is kept up to date.
            table: metrics of the validation.

        Raises:
            UserError: the metric can not be defined on these events; the message lists those that are.
        """
        name, metric = str(self.metric), self._value(table)
        if state.best.get("metric", name) != name:
            # Resumed with another metric: values of two metrics do not compare.
            state.best = {}
        better = is_better(name, metric.value, state.best.get("value"))
        if better:
            state.best = {"metric": name, "value": metric.value, "step": state.step, "epoch": state.epoch}
        state.validations_without_gain = 0 if better else state.validations_without_gain + 1
        return better

    def exhausted(self, state: TrainState) -> bool:
        """Whether patience is at its end."""
        return self._patience is not None and state.validations_without_gain >= self._patience

    def _value(self, table: MetricTable) -> Metric:
        name = self.metric
        metric = (table.retrieval if name.task is None else table.ranking[name.task])[name.metric]
        if metric.value is None and metric.reason and not metric.of_model:
            defined = [other for other, value in named_metrics(table.values()).items() if value is not None]
            raise UserError(
                f"train.selection.metric = {str(name)!r}: no such metric on the validation events, "
                f"{metric.reason}; there are: {', '.join(defined)}"
            )
        return metric

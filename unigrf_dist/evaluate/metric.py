"""Metrics of an evaluation as values: value, confidence interval, and the reason where one is undefined."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Metric:
    """A measured value with its 95 % confidence interval.

    Attributes:
        value: None when it is undefined on this data; ``reason`` then says why.
        low: lower end of the interval; None when no intervals were asked for.
        high: upper end of the interval.
        reason: why it is undefined; empty when it is not.
        of_model: whether it is undefined because of the model's predictions, and not of the events.
        note: why the value says little; empty when it is as good as any.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    of_model: bool = False
    note: str = ""

    def to_dict(self) -> dict[str, object]:
        record = asdict(self)
        return {name: value for name, value in record.items() if name in ("value", "low", "high") or value}


@dataclass(frozen=True)
class CalibrationBin:
    """Predictions between ``low`` and ``high``: their mean, the observed share of positives, how many."""

    low: float
    high: float
    mean_predicted: float
    observed: float
    count: int


@dataclass(frozen=True)
class MetricTable:
    """All metrics of one scorer: the model or a baseline.

    Attributes:
        retrieval: metrics by name, such as ``hr@10``, ``ndcg@10``, ``mrr``.
        ranking: metrics by task and name: ``auc``, ``log_loss``, ``calibration``, ``ece``.
        retrieval_of: metrics of retrieval on some of the users: ``new`` (the target was not met before) and
            ``repeated``; empty where they are not told apart.
        calibration_bins: bins by task, in ascending order of predictions.
    """

    retrieval: dict[str, Metric]
    ranking: dict[str, dict[str, Metric]]
    calibration_bins: dict[str, list[CalibrationBin]] = field(default_factory=dict)
    retrieval_of: dict[str, dict[str, Metric]] = field(default_factory=dict)

    def values(self) -> dict[str, dict]:
        """``{"retrieval": {name: value}, "ranking": {task: {name: value or None}}}``."""
        return {
            "retrieval": {name: metric.value for name, metric in self.retrieval.items()},
            "ranking": {
                task: {name: metric.value for name, metric in metrics.items()}
                for task, metrics in self.ranking.items()
            },
        }

    def to_dict(self) -> dict[str, dict]:
        """The same with intervals and reasons, without the bins."""
        return {
            "retrieval": {name: metric.to_dict() for name, metric in self.retrieval.items()},
            "ranking": {
                task: {name: metric.to_dict() for name, metric in metrics.items()}
                for task, metrics in self.ranking.items()
            },
            **({"retrieval_of": _of_groups(self.retrieval_of)} if self.retrieval_of else {}),
        }


def _of_groups(groups: dict[str, dict[str, Metric]]) -> dict[str, dict]:
    return {
        group: {name: metric.to_dict() for name, metric in metrics.items()} for group, metrics in groups.items()
    }

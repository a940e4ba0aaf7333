"""All opponents of a model on one data set: fitted to the training events, their settings picked on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from unigrf_dist.data import Dataset, JaggedBatch
from unigrf_dist.evaluate.opponents.item_pairs import MOST_PAIRS, TooManyPairs, co_occurrences
from unigrf_dist.evaluate.opponents.item_to_item import ItemToItem
from unigrf_dist.evaluate.opponents.label_means import (
    LabelMeans,
    regression_on_means,
    sum_of_means,
)
from unigrf_dist.evaluate.opponents.neighbours import EASE_MOST_ITEMS, ease, item_knn, transition_knn
from unigrf_dist.evaluate.opponents.validation_sample import ValidationSample
from unigrf_dist.evaluate.scorer import Scorer
from unigrf_dist.evaluate.training_statistics import TrainingStatistics, training_events

_TOO_MANY = f"more than {MOST_PAIRS:,} pairs of items"


@dataclass(frozen=True)
class Opponents:
    """Scorers by name, those of retrieval first.

    Attributes:
        scorers: what could be fitted.
        settings: what was picked or fitted on validation, in words, by the same names.
        skipped: why an opponent is not there, by its name.
    """

    scorers: dict[str, Scorer] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def fit_opponents(
    dataset: Dataset,
    statistics: TrainingStatistics,
    task_labels: Tensor,
    sample: ValidationSample,
    *,
    rank: int,
    world_size: int,
) -> Opponents:
    """Fit all opponents; no test event is read; collective.

    Args:
        dataset: data set to read.
        statistics: counts over its training events.
        task_labels: ``[num_behaviours, A]``, NaN where a behaviour has no label.
        sample: validation events on which settings are picked.
        rank: rank of this process.
        world_size: number of ranks.
    """
    opponents = Opponents()

    def events() -> Iterator[JaggedBatch]:
        return training_events(dataset, rank, world_size)

    _pick(opponents, "transition_knn", sample, lambda: transition_knn(events, dataset.num_items))
    try:
        together = co_occurrences(events(), dataset.num_items)
    except TooManyPairs:
        opponents.skipped.update({"item_knn": _TOO_MANY, "ease": _TOO_MANY})
    else:
        _pick(opponents, "item_knn", sample, lambda: item_knn(together))
        if dataset.num_items <= EASE_MOST_ITEMS:
            _pick(opponents, "ease", sample, lambda: ease(together))
        else:
            opponents.skipped["ease"] = f"{dataset.num_items:,} items, more than {EASE_MOST_ITEMS:,}"
    if task_labels.shape[1]:
        _add_label_means(opponents, LabelMeans(statistics, task_labels), sample, task_labels)
    return opponents


def _pick(
    opponents: Opponents, name: str, sample: ValidationSample, candidates: Callable[[], Iterable[ItemToItem]]
) -> None:
    try:
        best = sample.best(candidates())
    except TooManyPairs:
        opponents.skipped[name] = _TOO_MANY
        return
    opponents.scorers[name], opponents.settings[name] = best, best.settings


def _add_label_means(
    opponents: Opponents, means: LabelMeans, sample: ValidationSample, task_labels: Tensor
) -> None:
    opponents.scorers["user_item_mean"] = sum_of_means(means)
    regression = regression_on_means(means, sample.batches, task_labels)
    opponents.scorers["label_regression"] = regression
    weights = (f"{item:.2f} item + {user:.2f} user" for _, item, user in regression.coefficients.tolist())
    opponents.settings["label_regression"] = ", ".join(weights)

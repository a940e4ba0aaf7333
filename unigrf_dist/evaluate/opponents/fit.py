"""All opponents of a model on one data set: fitted to the training events, their settings picked on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from unigrf_dist.data import Dataset, JaggedBatch
from unigrf_dist.evaluate.opponents.item_pairs import (
    MOST_PAIRS,
    MOST_WORK,
    TooManyPairs,
    co_occurrences,
    work_of_co_occurrences,
)
from unigrf_dist.evaluate.opponents.label_means import (
    LabelMeans,
    regression_on_means,
    sum_of_means,
)
from unigrf_dist.evaluate.opponents.neighbours import EASE_MOST_ITEMS, ease, item_knn, transition_knn
from unigrf_dist.evaluate.opponents.search import Family
from unigrf_dist.evaluate.opponents.validation_sample import ValidationSample
from unigrf_dist.evaluate.scorer import Scorer
from unigrf_dist.evaluate.training_statistics import TrainingStatistics, training_events

MOST_SCORES = 20_000_000_000
"""Users × items that a neighbour method scores at most, over all ranks: about ten minutes of one core."""
RETRIEVAL_OPPONENTS = ("transition_knn", "item_knn", "ease")

# The search starts with so many gaps, and may go on to more.
_GAPS_AT_FIRST = 10
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
    num_users: int,
    rank: int,
    world_size: int,
    all_live: bool = True,
) -> Opponents:
    """Fit all opponents; no test event is read; collective.

    Args:
        dataset: data set to read.
        statistics: counts over its training events.
        task_labels: ``[num_behaviours, A]``, NaN where a behaviour has no label.
        sample: validation events on which settings are picked.
        num_users: users that the opponents will score, over all ranks.
        rank: rank of this process.
        world_size: number of ranks.
        all_live: whether every item is a candidate; else the opponents of retrieval are left out.
    """
    opponents = Opponents()
    manifest, num_items = dataset.manifest, dataset.num_items

    def events() -> Iterator[JaggedBatch]:
        return training_events(dataset, rank, world_size)

    scores = num_users * num_items
    if not all_live:
        reason = "they rank all items, and under tables.ids: dynamic some are no candidates"
        opponents.skipped.update(dict.fromkeys(RETRIEVAL_OPPONENTS, reason))
    elif scores > MOST_SCORES:
        reason = f"{num_users:,} users × {num_items:,} items are more than {MOST_SCORES:,} scores"
        opponents.skipped.update(dict.fromkeys(RETRIEVAL_OPPONENTS, reason))
    else:
        if manifest.num_training_events * _GAPS_AT_FIRST > MOST_WORK:
            opponents.skipped["transition_knn"] = f"more than {MOST_WORK:,} pairs of events"
        else:
            _pick(opponents, "transition_knn", sample, lambda: transition_knn(events, num_items))
        _add_co_occurrences(opponents, dataset, events, sample)
    if task_labels.shape[1]:
        _add_label_means(opponents, LabelMeans(statistics, task_labels), sample, task_labels)
    return opponents


def _add_co_occurrences(
    opponents: Opponents, dataset: Dataset, events: Callable[[], Iterator[JaggedBatch]], sample: ValidationSample
) -> None:
    manifest, num_items = dataset.manifest, dataset.num_items
    work = work_of_co_occurrences(manifest.num_users, manifest.num_training_events, num_items)
    try:
        if work > MOST_WORK:
            raise TooManyPairs
        together = co_occurrences(events(), num_items)
    except TooManyPairs:
        reason = f"more than {MOST_WORK:,} pairs of events" if work > MOST_WORK else _TOO_MANY
        opponents.skipped.update({"item_knn": reason, "ease": reason})
        return
    _pick(opponents, "item_knn", sample, lambda: item_knn(together))
    if num_items <= EASE_MOST_ITEMS:
        _pick(opponents, "ease", sample, lambda: ease(together))
    else:
        opponents.skipped["ease"] = f"{num_items:,} items, more than {EASE_MOST_ITEMS:,}"


def _pick(opponents: Opponents, name: str, sample: ValidationSample, family: Callable[[], Family]) -> None:
    try:
        opponents.scorers[name], opponents.settings[name] = sample.best(family())
    except TooManyPairs:
        opponents.skipped[name] = _TOO_MANY


def _add_label_means(
    opponents: Opponents, means: LabelMeans, sample: ValidationSample, task_labels: Tensor
) -> None:
    opponents.scorers["user_item_mean"] = sum_of_means(means)
    regression = regression_on_means(means, sample.batches, task_labels)
    opponents.scorers["label_regression"] = regression
    weights = (f"{item:.2f} item + {user:.2f} user" for _, item, user in regression.coefficients.tolist())
    opponents.settings["label_regression"] = ", ".join(weights)

"""Whether a configuration fits the data and the number of ranks, before anything is built."""

from __future__ import annotations

from unigrf_dist.config import Config
from unigrf_dist.config.task_rule import label_table, target_behaviours
from unigrf_dist.data import Dataset
from unigrf_dist.data.manifest import Owner
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.metric_names import MetricName, read_metric_name
from unigrf_dist.model.backbone import refuse_unbuildable


def refuse_unfit(config: Config, dataset: Dataset, ranks: int) -> None:
    """All checks of a training run that need the data and the number of ranks, but no rank.

    Args:
        config: configuration of the run.
        dataset: the data set that it names.
        ranks: number of ranks that will share a batch.

    Raises:
        UserError: the backbone, a task, a feature, the metric of selection or the batch does not fit.
    """
    refuse_unbuildable(config.model)
    task_labels(config, dataset)
    retrieval_targets(config, dataset)
    refuse_absent_features(config, dataset)
    refuse_unmeasurable(config, dataset)
    refuse_too_many_ranks(config, ranks)


def task_labels(config: Config, dataset: Dataset) -> list[list[float]]:
    """``[num_behaviours][A]`` label of every behaviour code under every ranking task, NaN where it has none.

    Raises:
        UserError: a task is a rule on a value that no behaviour of the data has.
    """
    try:
        return label_table([task.rule for task in config.objective.ranking], dataset.manifest.behaviours)
    except ValueError as error:
        raise UserError(f"objective.ranking: {error}") from error


def retrieval_targets(config: Config, dataset: Dataset) -> list[bool]:
    """``[num_behaviours]`` whether an event of each behaviour is one that retrieval is to find.

    Raises:
        UserError: the rule names a value that no behaviour of the data has, or no behaviour meets it.
    """
    rule = config.objective.retrieval.targets
    try:
        found = target_behaviours(rule, dataset.manifest.behaviours)
    except ValueError as error:
        raise UserError(f"objective.retrieval.targets: {error}") from error
    if not any(found):
        raise UserError(f"objective.retrieval.targets: no behaviour of {dataset.path} meets '{rule}'")
    return found


def refuse_absent_features(config: Config, dataset: Dataset) -> None:
    """Raise UserError unless the data set has the side features that the configuration names."""
    required: dict[Owner, list[str]] = {"item": config.model.item_features, "user": config.model.user_features}
    for owner, names in required.items():
        present = dataset.manifest.features_of(owner)
        if absent := [name for name in names if name not in present]:
            raise UserError(
                f"model.{owner}_features names {absent[0]}, but {dataset.path} has for {owner}s: "
                f"{', '.join(present) or 'no features; prepare it again with the files that hold them'}"
            )


def refuse_unmeasurable(config: Config, dataset: Dataset) -> None:
    """Raise UserError if no validation could ever pick the best model."""
    selection_metric(config)
    if config.data.split.kind == "time":
        _refuse_empty_periods(config, dataset)
    elif dataset.num_held_out("validation") == 0:
        raise UserError(
            f"{dataset.path}: no user has the 3 events that a validation and a test event take; "
            "nothing could be validated"
        )


def _refuse_empty_periods(config: Config, dataset: Dataset) -> None:
    """Raise UserError if a split in time leaves nothing to train on, or nobody to evaluate."""
    first, last = dataset.manifest.first_timestamp, dataset.manifest.last_timestamp
    where = f"{dataset.path} has events from {first} to {last} (seconds)"
    split = config.data.split
    if dataset.num_training_events == 0:
        raise UserError(f"data.split.validation_from = {split.validation_from}: no event is before; {where}")
    for name, start in (("validation", split.validation_from), ("test", split.test_from)):
        if dataset.num_held_out(name) == 0:  # type: ignore[arg-type]
            raise UserError(
                f"data.split.{name}_from = {start}: no user has a {name} event and one before it; {where}"
            )


def selection_metric(config: Config) -> MetricName:
    """The metric that picks the best model.

    Raises:
        UserError: ``train.selection.metric`` names none; the message lists those there are.
    """
    try:
        return read_metric_name(config.train.selection.metric, [task.rule for task in config.objective.ranking])
    except ValueError as error:
        raise UserError(f"train.selection.metric is {error}") from error


def refuse_too_many_ranks(config: Config, ranks: int) -> None:
    """Raise UserError if there are fewer partitions of the users than ranks to share them."""
    if ranks > config.data.partitions:
        raise UserError(
            f"data.partitions = {config.data.partitions}, but {ranks} ranks take one or more each; "
            f"set it to the largest number of ranks that this run may have (--set data.partitions={ranks})"
        )

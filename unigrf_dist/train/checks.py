"""Whether a configuration fits the data and the ranks: what can be told before a rank starts."""

from __future__ import annotations

from unigrf_dist.config import Config
from unigrf_dist.config.task_rule import label_table
from unigrf_dist.data import Dataset
from unigrf_dist.data.manifest import Owner
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.metrics import RANKING_METRICS, RETRIEVAL_METRICS


def refuse_unfit(config: Config, dataset: Dataset, ranks: int) -> None:
    """Raise UserError unless ``config`` can be trained on ``dataset`` by ``ranks`` processes: all checks below."""
    task_labels(config, dataset)
    refuse_absent_features(config, dataset)
    refuse_unmeasurable(config, dataset)
    users_per_rank(config, ranks)


def task_labels(config: Config, dataset: Dataset) -> list[list[float]]:
    """Label of every behaviour of the data under every ranking task of the configuration."""
    try:
        return label_table([task.rule for task in config.objective.ranking], dataset.manifest.behaviours)
    except ValueError as error:
        raise UserError(f"objective.ranking: {error}") from error


def refuse_absent_features(config: Config, dataset: Dataset) -> None:
    """Raise UserError unless the data set has the side features that the configuration names."""
    wanted: dict[Owner, list[str]] = {"item": config.model.item_features, "user": config.model.user_features}
    for owner, names in wanted.items():
        there = dataset.manifest.features_of(owner)
        if absent := [name for name in names if name not in there]:
            raise UserError(
                f"model.{owner}_features names {absent[0]}, but {dataset.path} has for {owner}s: "
                f"{', '.join(there) or 'no features; prepare it again with the files that hold them'}"
            )


def refuse_unmeasurable(config: Config, dataset: Dataset) -> None:
    """Raise UserError if no validation could ever choose the best model."""
    metric, known = config.train.selection.metric, (*RETRIEVAL_METRICS, *RANKING_METRICS)
    if metric not in known:
        raise UserError(f"train.selection.metric is {metric!r}; allowed: {', '.join(known)}")
    if dataset.manifest.num_training_only_users == dataset.num_users:
        raise UserError(
            f"{dataset.path}: no user has the 3 events that a validation and a test event take; "
            "nothing could be validated"
        )


def users_per_rank(config: Config, world_size: int) -> int:
    """This rank's share of the global batch."""
    users = config.train.global_batch_users
    if users % world_size:
        raise UserError(
            f"train.global_batch_users = {users} does not divide by {world_size} ranks; "
            f"the nearest that does is {max(1, round(users / world_size)) * world_size}"
        )
    return users // world_size

"""What training and evaluation do with items that users met before, made to agree with each other and the data."""

from __future__ import annotations

from unigrf_dist.config import Config
from unigrf_dist.data.manifest import Manifest
from unigrf_dist.data.seen_rule import seen_rule


def with_seen_rule(config: Config, manifest: Manifest) -> Config:
    """The configuration with ``evaluate.seen`` and the mask of training filled in where nobody said.

    Args:
        config: configuration of the run.
        manifest: of its data set.
    """
    rule = seen_rule(config.evaluate.seen, manifest)
    retrieval = config.objective.retrieval
    if retrieval.mask_seen_negatives is None:
        retrieval = retrieval.model_copy(update={"mask_seen_negatives": rule != "keep"})
    return config.model_copy(
        update={
            "evaluate": config.evaluate.model_copy(update={"seen": rule}),
            "objective": config.objective.model_copy(update={"retrieval": retrieval}),
        }
    )


def needs_prior_items(config: Config) -> bool:
    """Whether training asks what users met before the events of a batch."""
    masked = config.objective.retrieval.mask_seen_negatives is not False
    # Items before the window stay in the ranking under this rule, so they stay negatives.
    return config.objective.enhancer is not None or (masked and config.evaluate.seen != "window")

"""Floating-point operations of a training, from its configuration and data; convention in `model/flops.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.config.schema import Config
from unigrf_dist.data import Dataset
from unigrf_dist.data.rows import RowPlan
from unigrf_dist.data.sampling import SAMPLED_ROW_GROUPS, sample_row_groups
from unigrf_dist.model.backbone import backbone_flops
from unigrf_dist.model.flops import TOKENS_PER_EVENT, retrieval_head_flops


def epoch_flops(config: Config, dataset: Dataset) -> float:
    """Forward and backward of one epoch over the users of ``dataset``.

    On a large data set lengths come from a sample of its users, and the result is scaled to all of them.
    """
    events, context, share = _training_rows(config, dataset)
    tokens = TOKENS_PER_EVENT * events.astype(np.float64)
    # The first event of a history has no query before it; later chunks begin with context.
    targets = float(np.maximum(events - np.maximum(context, 1), 0).sum())
    candidates = _candidates(config, dataset, float(events.sum()) / max(len(events), 1))
    head = retrieval_head_flops(targets, candidates, config.model.width)
    return (backbone_flops(config.model, tokens) + head) / share


def _training_rows(config: Config, dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """``[n]`` events of the sampled users' rows, ``[n]`` context among them, and the sampled share of users."""
    trained = np.concatenate(
        [dataset.split.num_training_events(each) for each in sample_row_groups(dataset, SAMPLED_ROW_GROUPS)]
    )
    plan = RowPlan(config.data.max_events, config.data.context_of_chunks)
    spans = plan.all_spans(trained)
    return spans.stops - spans.starts, spans.context, len(trained) / dataset.num_users


def _candidates(config: Config, dataset: Dataset, events_per_user: float) -> float:
    """Items in the softmax of one retrieval query."""
    retrieval = config.objective.retrieval
    in_batch = config.train.global_batch_users * events_per_user
    return {
        "full": float(dataset.num_items),
        "sampled": float(retrieval.num_negatives),
        "in_batch": in_batch,
        "mixed": in_batch + retrieval.num_negatives,
    }[retrieval.negatives]

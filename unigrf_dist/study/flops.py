"""Floating-point operations of a training, counted from its configuration and its data.

The convention, also in docs/studies.md: a matrix product of m × k and k × n takes ``2 m n k``, its backward twice
that; attention takes ``2 heads T² head_width`` per sequence of ``T`` tokens forward (both products, the half above
the diagonal left out), its backward 2.5 times that. Norms, activations, dropout, lookups, optimizers and the
ranking head are left out, as are the enhancer's candidate tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.config.schema import Config, ModelConfig
from unigrf_dist.data import Dataset
from unigrf_dist.data.dataset import RowGroupReader, RowGroups
from unigrf_dist.data.split import num_training_events
from unigrf_dist.model.llama import default_feedforward_width

CONVENTION = (
    "GEMM 2mnk forward, twice that backward; attention 2·heads·T²·head_width per sequence forward (causal half "
    "left out), 2.5 times that backward; everything else left out"
)
_GEMM_WITH_BACKWARD, _ATTENTION_WITH_BACKWARD = 3.0, 3.5
# More users say nothing new about the mean of their lengths.
_MAX_ROW_GROUPS = 400


def epoch_flops(config: Config, dataset: Dataset) -> float:
    """Forward and backward of one epoch over the users of ``dataset``."""
    lengths, share = _training_lengths(config, dataset)
    events, tokens = float(lengths.sum()), 2.0 * lengths
    model = config.model
    products = 2 * model.blocks * _block_weights(model) * float(tokens.sum())
    targets = float(np.maximum(lengths - 1, 0).sum())
    products += 2 * model.width * targets * _candidates(config, dataset, events / max(len(lengths), 1))
    attention = 2 * model.blocks * model.heads * model.head_width * float((tokens**2).sum())
    return (_GEMM_WITH_BACKWARD * products + _ATTENTION_WITH_BACKWARD * attention) / share


def _training_lengths(config: Config, dataset: Dataset) -> tuple[NDArray[np.int64], float]:
    """Training events of users as the stream hands them on, and the share of users that were looked at."""
    groups, reader = RowGroups.of(dataset.manifest), RowGroupReader(dataset)
    stride = -(-len(groups.shard) // _MAX_ROW_GROUPS) or 1
    places = zip(groups.shard[::stride], groups.group[::stride], strict=True)
    lengths = np.concatenate([reader.read(int(shard), int(group)).lengths for shard, group in places])
    # History and one target.
    kept = np.minimum(num_training_events(lengths), config.data.max_events + 1)
    return kept, len(lengths) / dataset.num_users


def _block_weights(model: ModelConfig) -> int:
    """Entries of a block's weight matrices."""
    inner = model.heads * model.head_width
    if model.backbone == "hstu":
        return model.width * 4 * inner + inner * model.width
    shared = (model.key_heads or model.heads) * model.head_width
    forward = model.feedforward_width or default_feedforward_width(model.width)
    return model.width * (2 * inner + 2 * shared) + 3 * model.width * forward


def _candidates(config: Config, dataset: Dataset, events_per_user: float) -> float:
    """Items that retrieval tells a target from."""
    retrieval = config.objective.retrieval
    in_batch = config.train.global_batch_users * events_per_user
    return {
        "full": float(dataset.num_items),
        "sampled": float(retrieval.num_negatives),
        "in_batch": in_batch,
        "mixed": in_batch + retrieval.num_negatives,
    }[retrieval.negatives]

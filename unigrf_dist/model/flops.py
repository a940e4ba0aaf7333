"""Floating-point operations of a training step's parts, forward and backward together.

The convention: a product of ``m × k`` and ``k × n`` takes ``2 m n k``, its backward twice that; attention takes
``2 heads T² head_width`` per sequence of ``T`` tokens forward (both products, the half above the diagonal not
counted), its backward 2.5 times that. Everything else is not counted: norms, activations, dropout, biases, lookups
in the tables, optimizers, the ranking head, and the enhancer's candidate tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONVENTION = (
    "GEMM 2mnk forward, twice that backward; attention 2·heads·T²·head_width per sequence forward (causal half "
    "not counted), 2.5 times that backward; nothing else is counted"
)
# An event is an item token and a behaviour token.
TOKENS_PER_EVENT = 2
_GEMM_WITH_BACKWARD, _ATTENTION_WITH_BACKWARD = 3.0, 3.5


def projection_flops(num_tokens: float, num_weights: int) -> float:
    """Products of ``num_tokens`` vectors with weight matrices of ``num_weights`` entries together."""
    return _GEMM_WITH_BACKWARD * 2 * num_tokens * num_weights


def attention_flops(tokens: NDArray[np.float64], heads: int, head_width: int) -> float:
    """Causal self-attention of one block.

    Args:
        tokens: ``[n]`` tokens of each sequence.
        heads: query heads.
        head_width: width of one head.
    """
    return _ATTENTION_WITH_BACKWARD * 2 * heads * head_width * float((tokens**2).sum())


def retrieval_head_flops(num_queries: float, num_candidates: float, width: int) -> float:
    """Scores of ``num_queries`` hidden states against ``num_candidates`` item vectors each."""
    return _GEMM_WITH_BACKWARD * 2 * num_queries * num_candidates * width

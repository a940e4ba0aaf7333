"""The main kernel: a tile of pairs against all shared negatives, softmax and its gradient in one pass.

It is attention with one head whose keys and values are both the negatives: the gradient of a query is the
softmax-weighted sum of the directions it was compared with.
"""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .triton_rows import load_vectors, masked_bits, store_vectors


@triton.jit
def stream_kernel(
    queries,
    positive_ids,
    mask_rows,
    directions,
    negative_ids,
    log_q,
    mask,
    split_max,
    split_sum_exp,
    weighted_sums,
    num_pairs,
    num_columns,
    split_columns,
    num_words,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SHIFTED: tl.constexpr,
    GRADIENT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid: tiles of pairs, then splits of ``split_columns`` columns, a multiple of ``BLOCK_K``.

    Writes per split and pair the largest exponent (0 unless SHIFTED), the sum of exponentials relative to it and,
    for GRADIENT, the sum of the negatives' directions weighted with those exponentials. `log_q` is to base 2.
    """
    pair = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    valid = pair < num_pairs
    positive_id = tl.load(positive_ids + pair, mask=valid, other=0)
    words = mask
    if mask is not None:
        words = mask + tl.load(mask_rows + pair, mask=valid, other=0) * num_words
    query = load_vectors(queries, pair, valid, D, BLOCK_D)

    running_max = tl.full([BLOCK_P], -float("inf") if SHIFTED else 0.0, dtype=tl.float32)
    sum_exp = tl.zeros([BLOCK_P], dtype=tl.float32)
    gradient = tl.zeros([BLOCK_P, BLOCK_D if GRADIENT else 1], dtype=tl.float32)
    begin = tl.program_id(1) * split_columns
    end = tl.minimum(begin + split_columns, num_columns)
    for first in range(begin, end, BLOCK_K):
        column = first + tl.arange(0, BLOCK_K)
        inside = column < end
        vectors = load_vectors(directions, column, inside, D, BLOCK_D)
        exponents = tl.dot(query, tl.trans(vectors), input_precision=PRECISION)
        if log_q is not None:
            exponents = exponents - tl.load(log_q + column, mask=inside, other=0.0)[None, :]
        column_id = tl.load(negative_ids + column, mask=inside, other=0)
        counted = (positive_id[:, None] != column_id[None, :]) & inside[None, :]
        exponents = tl.where(counted, exponents, -float("inf"))
        if mask is not None:
            removed = masked_bits(words, column, valid, num_words, first, BLOCK_K, 0)
            exponents = tl.where(removed, -float("inf"), exponents)
        if SHIFTED:
            new_max = tl.maximum(running_max, tl.max(exponents, 1))
            # All columns so far may have been masked for a pair: -inf less -inf would be NaN.
            reference = tl.where(new_max == -float("inf"), 0.0, new_max)
            rescale = tl.exp2(running_max - reference)
            exponents = exponents - reference[:, None]
            sum_exp = sum_exp * rescale
            if GRADIENT:
                gradient = gradient * rescale[:, None]
            running_max = new_max
        exponentials = tl.exp2(exponents)
        sum_exp += tl.sum(exponentials, 1)
        if GRADIENT:
            gradient = tl.dot(exponentials.to(vectors.dtype), vectors, gradient, input_precision=PRECISION)

    split = tl.program_id(1).to(tl.int64)
    tl.store(split_max + split * num_pairs + pair, running_max, mask=valid)
    tl.store(split_sum_exp + split * num_pairs + pair, sum_exp, mask=valid)
    if GRADIENT:
        store_vectors(weighted_sums + split * num_pairs * D, pair, valid, gradient, D, BLOCK_D)

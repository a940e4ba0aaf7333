"""Gradients of the negatives: a tile of columns against the query-positive pairs that count them."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .triton_rows import LN_2, load_vectors, masked_bits, store_vectors


@triton.jit
def negative_gradient_kernel(
    queries,
    positive_ids,
    mask_rows,
    row_max,
    row_scale,
    directions,
    negative_ids,
    log_q,
    mask,
    partials,
    num_pairs,
    num_columns,
    split_pairs,
    num_words,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid: tiles of columns, then splits of ``split_pairs`` pairs.

    Recomputes the probabilities from the same products as `stream_kernel`. Writes the sum over the split's pairs
    of the gradients of the columns' directions.
    """
    column = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = column < num_columns
    vectors = load_vectors(directions, column, inside, D, BLOCK_D)
    column_id = tl.load(negative_ids + column, mask=inside, other=-1)
    split = tl.program_id(1).to(tl.int64)
    begin = split * split_pairs
    end = tl.minimum(begin + split_pairs, num_pairs)
    gradient = tl.zeros([BLOCK_K, BLOCK_D], dtype=tl.float32)
    for first in range(begin, end, BLOCK_P):
        pair = first + tl.arange(0, BLOCK_P)
        valid = pair < end
        query = load_vectors(queries, pair, valid, D, BLOCK_D)
        exponents = tl.dot(vectors, tl.trans(query), input_precision=PRECISION)
        # Subtractions in the order of `stream_kernel`, so that the largest exponent less itself is exactly zero.
        if log_q is not None:
            exponents -= tl.load(log_q + column, mask=inside, other=0.0)[:, None]
        exponents -= tl.load(row_max + pair, mask=valid, other=0.0)[None, :]
        positive_id = tl.load(positive_ids + pair, mask=valid, other=0)
        exponents = tl.where(column_id[:, None] == positive_id[None, :], -float("inf"), exponents)
        if mask is not None:
            words = mask + tl.load(mask_rows + pair, mask=valid, other=0) * num_words
            removed = masked_bits(words, column, valid, num_words, tl.program_id(0) * BLOCK_K, BLOCK_K, 1)
            exponents = tl.where(removed, -float("inf"), exponents)
        dlogits = tl.exp2(exponents) * _query_weights(row_scale, pair, valid)[None, :]
        gradient = tl.dot(dlogits.to(query.dtype), query, gradient, input_precision=PRECISION)
    store_vectors(partials, split * num_columns + column, inside, gradient, D, BLOCK_D)


@triton.jit
def user_negative_gradient_kernel(
    queries,
    row_max,
    row_scale,
    order,
    user_offsets,
    user_exponents,
    gradients,
    num_user_negatives,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid: users, then tiles of one user's ``num_user_negatives`` negatives.

    ``order[user_offsets[u]:user_offsets[u + 1]]`` are the pairs of user ``u``: only they are multiplied, so there
    is no product between a pair and another user's negatives. Their exponents were stored by `finish_kernel`.
    Writes the gradients of the negatives' directions.
    """
    user = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = column < num_user_negatives
    begin = tl.load(user_offsets + user)
    end = tl.load(user_offsets + user + 1)
    gradient = tl.zeros([BLOCK_K, BLOCK_D], dtype=tl.float32)
    for first in range(begin, end, BLOCK_P):
        position = first + tl.arange(0, BLOCK_P)
        valid = position < end
        pair = tl.load(order + position, mask=valid, other=0)
        query = load_vectors(queries, pair, valid, D, BLOCK_D)
        cell = pair[None, :] * num_user_negatives + column[:, None]
        exponents = tl.load(user_exponents + cell, mask=inside[:, None] & valid[None, :], other=-float("inf"))
        exponents -= tl.load(row_max + pair, mask=valid, other=0.0)[None, :]
        dlogits = tl.exp2(exponents) * _query_weights(row_scale, pair, valid)[None, :]
        gradient = tl.dot(dlogits.to(query.dtype), query, gradient, input_precision=PRECISION)
    store_vectors(gradients, user * num_user_negatives + column, inside, gradient, D, BLOCK_D)


@triton.jit
def _query_weights(row_scale, pair, valid):
    """Weight over sum of exponentials of each pair, times ln 2: queries carry the factor log2(e) / temperature,
    of which the gradient keeps only 1 / temperature.
    """
    return tl.load(row_scale + pair, mask=valid, other=0.0) * LN_2

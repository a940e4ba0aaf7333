"""Gradients of negatives: a tile of columns against the entries that count them."""

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
    highest,
    shares,
    directions,
    negative_ids,
    log_q,
    mask,
    partials,
    num_entries,
    num_columns,
    split_entries,
    num_words,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid: tiles of columns, then splits of ``split_entries`` entries.

    Computes the probabilities again, from the same products as `stream_kernel`. Writes the sum over the split's
    entries of the gradients of the columns' directions.
    """
    column = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = column < num_columns
    vectors = load_vectors(directions, column, inside, D, BLOCK_D)
    column_id = tl.load(negative_ids + column, mask=inside, other=-1)
    split = tl.program_id(1).to(tl.int64)
    begin = split * split_entries
    end = tl.minimum(begin + split_entries, num_entries)
    gradient = tl.zeros([BLOCK_K, BLOCK_D], dtype=tl.float32)
    for first in range(begin, end, BLOCK_P):
        entry = first + tl.arange(0, BLOCK_P)
        live = entry < end
        query = load_vectors(queries, entry, live, D, BLOCK_D)
        exponents = tl.dot(vectors, tl.trans(query), input_precision=PRECISION)
        # In the order of `stream_kernel`: the highest exponent less itself is exactly zero.
        if log_q is not None:
            exponents -= tl.load(log_q + column, mask=inside, other=0.0)[:, None]
        exponents -= tl.load(highest + entry, mask=live, other=0.0)[None, :]
        own_id = tl.load(positive_ids + entry, mask=live, other=0)
        exponents = tl.where(column_id[:, None] == own_id[None, :], -float("inf"), exponents)
        if mask is not None:
            words = mask + tl.load(mask_rows + entry, mask=live, other=0) * num_words
            removed = masked_bits(words, column, live, num_words, tl.program_id(0) * BLOCK_K, BLOCK_K, 1)
            exponents = tl.where(removed, -float("inf"), exponents)
        pulls = tl.exp2(exponents) * _query_weights(shares, entry, live)[None, :]
        gradient = tl.dot(pulls.to(query.dtype), query, gradient, input_precision=PRECISION)
    store_vectors(partials, split * num_columns + column, inside, gradient, D, BLOCK_D)


@triton.jit
def own_gradient_kernel(
    queries,
    highest,
    shares,
    order,
    user_offsets,
    own_exponents,
    gradients,
    num_own,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid: tiles of a user's ``num_own`` own negatives, then users.

    ``order`` puts the entries of a user side by side, between two ``user_offsets``; `finish_kernel` has left their
    exponents. Writes the gradients of the negatives' directions.
    """
    column = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = column < num_own
    user = tl.program_id(1).to(tl.int64)
    begin = tl.load(user_offsets + user)
    end = tl.load(user_offsets + user + 1)
    gradient = tl.zeros([BLOCK_K, BLOCK_D], dtype=tl.float32)
    for first in range(begin, end, BLOCK_P):
        place = first + tl.arange(0, BLOCK_P)
        live = place < end
        entry = tl.load(order + place, mask=live, other=0)
        query = load_vectors(queries, entry, live, D, BLOCK_D)
        pair = entry[None, :] * num_own + column[:, None]
        exponents = tl.load(own_exponents + pair, mask=inside[:, None] & live[None, :], other=-float("inf"))
        exponents -= tl.load(highest + entry, mask=live, other=0.0)[None, :]
        pulls = tl.exp2(exponents) * _query_weights(shares, entry, live)[None, :]
        gradient = tl.dot(pulls.to(query.dtype), query, gradient, input_precision=PRECISION)
    store_vectors(gradients, user * num_own + column, inside, gradient, D, BLOCK_D)


@triton.jit
def _query_weights(shares, entry, live):
    """Weight of each entry over its sum of exponentials, for queries that are directions over temperature times
    log2(e).
    """
    return tl.load(shares + entry, mask=live, other=0.0) * LN_2

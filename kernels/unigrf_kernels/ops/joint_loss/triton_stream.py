"""The main kernel: a tile of entries against all shared negatives, softmax and its gradient in one pass.

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
    peaks,
    totals,
    sums,
    num_entries,
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
    """Grid: tiles of entries, then splits of ``split_columns`` columns, a multiple of ``BLOCK_K``.

    Writes per split and entry the largest exponent (0 unless SHIFTED), the sum of the exponentials below it and,
    for GRADIENT, their sum weighted with the negatives' directions. `log_q` is to base 2.
    """
    entry = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = entry < num_entries
    own_id = tl.load(positive_ids + entry, mask=live, other=0)
    words = mask
    if mask is not None:
        words = mask + tl.load(mask_rows + entry, mask=live, other=0) * num_words
    query = load_vectors(queries, entry, live, D, BLOCK_D)

    peak = tl.full([BLOCK_P], -float("inf") if SHIFTED else 0.0, dtype=tl.float32)
    total = tl.zeros([BLOCK_P], dtype=tl.float32)
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
        counted = (own_id[:, None] != column_id[None, :]) & inside[None, :]
        exponents = tl.where(counted, exponents, -float("inf"))
        if mask is not None:
            removed = masked_bits(words, column, live, num_words, first, BLOCK_K, 0)
            exponents = tl.where(removed, -float("inf"), exponents)
        if SHIFTED:
            higher = tl.maximum(peak, tl.max(exponents, 1))
            # An entry may have had all its columns removed so far.
            reference = tl.where(higher == -float("inf"), 0.0, higher)
            shrink = tl.exp2(peak - reference)
            exponents = exponents - reference[:, None]
            total = total * shrink
            if GRADIENT:
                gradient = gradient * shrink[:, None]
            peak = higher
        exponentials = tl.exp2(exponents)
        total += tl.sum(exponentials, 1)
        if GRADIENT:
            gradient = tl.dot(exponentials.to(vectors.dtype), vectors, gradient, input_precision=PRECISION)

    split = tl.program_id(1).to(tl.int64)
    tl.store(peaks + split * num_entries + entry, peak, mask=live)
    tl.store(totals + split * num_entries + entry, total, mask=live)
    if GRADIENT:
        store_vectors(sums + split * num_entries * D, entry, live, gradient, D, BLOCK_D)

"""Pieces that the attention kernels share: who sees whom, which tiles that touches, and the scores of a tile.

`rows` are queries and `cols` are keys, counted from the start of their sequence, with one axis of size one so that
either orientation of a tile works. `history` is the number of tokens that are not candidates. `asked` are times of
queries and `happened` times of keys. Tile ranges are in tiles, not tokens.
"""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)

# Buckets per octave, log(2) / BUCKET_WIDTH = 2.3028, times 2^32 / 2^23: the estimate's fixed point.
_ESTIMATE_FACTOR = tl.constexpr(1179)
# Minus the exponent bias, plus 0.21 buckets: above the largest shortfall of the estimate.
_ESTIMATE_OFFSET = tl.constexpr(765_000 - (127 << 23))


@triton.jit
def open_work(work, offsets, num_candidates, item, HAS_CANDIDATES: tl.constexpr):
    """Sequence start (int64), length, history and rank of a work item; a filler item has length 0.

    Ranks count from the tile with the most work down, see `work_list_kernel`.
    """
    sequence = tl.load(work + 2 * item)
    rank = tl.load(work + 2 * item + 1)
    safe = tl.maximum(sequence, 0)
    start = tl.load(offsets + safe)
    length = tl.load(offsets + safe + 1) - start
    length = tl.where(sequence < 0, 0, length).to(tl.int32)
    history = length
    if HAS_CANDIDATES:
        history = length - tl.minimum(tl.load(num_candidates + safe), length).to(tl.int32)
    return start, length, history, rank


@triton.jit
def open_last_tokens(work, query_offsets, item, length):
    """Where a sequence's first token's query would stand (int64, may be negative), and the first row that asks."""
    sequence = tl.maximum(tl.load(work + 2 * item), 0)
    start = tl.load(query_offsets + sequence)
    num_queries = tl.minimum(tl.load(query_offsets + sequence + 1) - start, length).to(tl.int32)
    first_query = length - num_queries
    return start - first_query, first_query


@triton.jit
def visible(rows, cols, history, window, HAS_CANDIDATES: tl.constexpr, HAS_WINDOW: tl.constexpr):
    """Which pairs attend. Rows behind the sequence's end may see anything: their loads are zero."""
    seen = cols <= rows
    if HAS_CANDIDATES:
        seen = seen & ((cols < history) | (cols == rows))
    if HAS_WINDOW:
        seen = seen & (tl.minimum(rows, history) - tl.minimum(cols, history) < window)
    return seen


@triton.jit
def key_tiles(
    first_row,
    length,
    history,
    window,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_CANDIDATES: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Key tiles of one query tile: `[begin, full_begin)` and `[full_end, end)` need the mask, between them
    everything is visible, and `[self_begin, self_end)` holds candidates that see themselves.
    """
    last_row = tl.minimum(first_row + BLOCK_M, length)
    end = tl.cdiv(tl.minimum(last_row, history), BLOCK_N)
    begin = 0
    full_begin = 0
    if HAS_WINDOW:
        begin = tl.maximum(tl.minimum(first_row, history) - window + 1, 0) // BLOCK_N
        begin = tl.minimum(begin, end)
        newest = tl.minimum(first_row + BLOCK_M - 1, history)
        full_begin = tl.cdiv(tl.maximum(newest - window + 1, 0), BLOCK_N)
        full_begin = tl.minimum(tl.maximum(full_begin, begin), end)
    full_end = tl.minimum(first_row + 1, history) // BLOCK_N
    full_end = tl.maximum(tl.minimum(full_end, end), full_begin)
    self_begin = 0
    self_end = 0
    if HAS_CANDIDATES:
        self_begin = tl.maximum(tl.maximum(first_row, history) // BLOCK_N, end)
        self_end = tl.maximum(tl.cdiv(last_row, BLOCK_N), self_begin)
        self_end = tl.where(last_row > history, self_end, self_begin)
    return begin, full_begin, full_end, end, self_begin, self_end


@triton.jit
def query_tiles(
    first_col,
    length,
    history,
    window,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_CANDIDATES: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Query tiles of one key tile: `[begin, full_begin)` and `[full_end, end)` need the mask, between them
    everything is visible and lies inside the sequence.
    """
    last_col = tl.minimum(first_col + BLOCK_N, length)
    begin = first_col // BLOCK_M
    last_row = length
    if HAS_WINDOW:
        reach = tl.minimum(last_col, history) - 1 + window
        last_row = tl.where(reach > history, length, tl.minimum(reach, length))
    if HAS_CANDIDATES:
        last_row = tl.where(first_col >= history, last_col, tl.maximum(last_row, last_col))
    last_row = tl.where(first_col < length, last_row, first_col)
    end = tl.maximum(tl.cdiv(last_row, BLOCK_M), begin)
    full_begin = tl.minimum(tl.cdiv(first_col + BLOCK_N - 1, BLOCK_M), end)
    full_end = tl.minimum(length // BLOCK_M, end)
    if HAS_WINDOW:
        full_end = tl.where(history < first_col + window, full_end, (first_col + window) // BLOCK_M)
        full_end = tl.minimum(full_end, length // BLOCK_M)
    full_end = tl.maximum(tl.minimum(full_end, end), full_begin)
    if HAS_CANDIDATES:
        full_end = tl.where(first_col + BLOCK_N > history, full_begin, full_end)
    return begin, full_begin, full_end, end


@triton.jit
def time_buckets(asked, happened, thresholds, last_bucket):
    """Bucket of each time difference, int32; bit-identical to `buckets.time_buckets`.

    The float's exponent and mantissa, read as one fixed-point number, are its binary logarithm less at most
    0.0861, which is 0.199 buckets. So the estimate below is the bucket or the next one, and one comparison with
    the integer threshold decides. It needs no logarithm: that unit is the one the activation keeps busy.
    """
    distance = tl.abs(asked - happened)
    bits = tl.maximum(distance, 1).to(tl.float32).to(tl.int32, bitcast=True)
    estimate = (((bits + _ESTIMATE_OFFSET) >> 10) * _ESTIMATE_FACTOR) >> 22
    estimate = tl.minimum(estimate, last_bucket)
    return estimate - (distance < tl.load(thresholds + estimate)).to(tl.int32)


@triton.jit
def add_position_bias(
    scores,
    first_row,
    first_col,
    history,
    position_bias,
    num_positions,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    HAS_CANDIDATES: tl.constexpr,
):
    """Scores plus the position bias of the head, whose row `position_bias` points at.

    Where the whole tile lies at the last position or beyond, one scalar is enough. The branch also keeps the
    gather out of the software pipeline, which would copy a tile of bias through shared memory.
    """
    nearest = relative_positions(first_row, first_col + BLOCK_N - 1, history, HAS_CANDIDATES)
    if nearest >= num_positions - 1:
        scores += tl.load(position_bias + num_positions - 1).to(tl.float32)
    else:
        rows, cols = tile_indices(first_row, first_col, BLOCK_M, BLOCK_N, TRANSPOSED)
        distance = relative_positions(rows, cols, history, HAS_CANDIDATES)
        distance = tl.minimum(tl.maximum(distance, 0), num_positions - 1)
        scores += tl.load(position_bias + distance).to(tl.float32)
    return scores


@triton.jit
def time_bounds(times, first, limit, BLOCK: tl.constexpr):
    """Earliest and latest time of a tile's tokens."""
    moments = load_times(times, first, limit, BLOCK)
    return tl.min(moments), tl.max(moments)


@triton.jit
def add_time_bias(
    scores,
    first_asked,
    last_asked,
    first_happened,
    last_happened,
    query_times,
    key_times,
    first_row,
    first_col,
    length,
    time_bias,
    thresholds,
    near_thresholds,
    last_bucket,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):
    """Scores plus the time bias of the head, whose row `time_bias` points at; all buckets and their range.

    Far from the diagonal a tile mostly lies in one bucket, and one scalar is enough. A tile whose times span less
    than 2^31 counts from its earliest time in 32 bits, against `near_thresholds`, the same cut off at 2^31 - 1.
    The times are loaded where they are needed: kept from tile to tile they would fill 64 registers.
    """
    nearest = tl.maximum(tl.maximum(first_asked - last_happened, first_happened - last_asked), 0)
    farthest = tl.maximum(last_asked - first_happened, last_happened - first_asked)
    lowest = time_buckets(nearest, 0, thresholds, last_bucket)
    highest = time_buckets(farthest, 0, thresholds, last_bucket)
    earliest = tl.minimum(first_asked, first_happened)
    span = tl.maximum(last_asked, last_happened) - earliest
    if lowest == highest:
        bucket = lowest + tl.zeros(scores.shape, tl.int32)
        scores += tl.load(time_bias + lowest).to(tl.float32)
    else:
        across: tl.constexpr = 0 if TRANSPOSED else 1
        asked = tl.expand_dims(load_times(query_times, first_row, length, BLOCK_M), across)
        happened = tl.expand_dims(load_times(key_times, first_col, length, BLOCK_N), 1 - across)
        if (span >= 0) & (span < 2**31 - 1):
            near_asked = (asked - earliest).to(tl.int32)
            near_happened = (happened - earliest).to(tl.int32)
            bucket = time_buckets(near_asked, near_happened, near_thresholds, last_bucket)
        else:
            bucket = time_buckets(asked, happened, thresholds, last_bucket)
        scores += tl.load(time_bias + bucket).to(tl.float32)
    return scores, bucket, lowest, highest


@triton.jit
def tile_indices(first_row, first_col, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Query and key indices of a tile, broadcastable: `[queries, keys]`, or `[keys, queries]` if transposed."""
    rows = first_row + tl.arange(0, BLOCK_M)
    cols = first_col + tl.arange(0, BLOCK_N)
    across: tl.constexpr = 0 if TRANSPOSED else 1
    return tl.expand_dims(rows, across), tl.expand_dims(cols, 1 - across)


@triton.jit
def relative_positions(rows, cols, history, HAS_CANDIDATES: tl.constexpr):
    """Query position less key position; all candidates of a sequence stand at the same position."""
    if HAS_CANDIDATES:
        rows = tl.minimum(rows, history)
        cols = tl.minimum(cols, history)
    return rows - cols


@triton.jit
def sigmoid(scores):
    """1 / (1 + exp(-s)) through a reciprocal square root: one fast instruction, where a division is many."""
    root = tl.rsqrt(1.0 + tl.exp2(scores * -LOG2_E))
    return root * root


@triton.jit
def load_tile(
    base,
    first,
    limit,
    stride,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASK_TOKENS: tl.constexpr,
):
    """`[BLOCK, BLOCK_D]` of the tokens from `first` on; zeros behind `limit` and behind the head's width."""
    token = tl.arange(0, BLOCK)
    dim = tl.arange(0, BLOCK_D)
    pointers = base + tl.cast(first, tl.int64) * stride + (token[:, None] * stride + dim[None, :])
    if MASK_TOKENS:
        inside = (first + token < limit)[:, None]
        if D < BLOCK_D:
            inside = inside & (dim < D)[None, :]
        tile = tl.load(pointers, mask=inside, other=0.0)
    elif D < BLOCK_D:
        tile = tl.load(pointers, mask=(dim < D)[None, :], other=0.0)
    else:
        tile = tl.load(pointers)
    return tile


@triton.jit
def store_tile(base, tile, first, limit, stride, D: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """Store the tokens before `limit`, in the type that `base` points to."""
    token = tl.arange(0, BLOCK)
    dim = tl.arange(0, BLOCK_D)
    pointers = base + tl.cast(first, tl.int64) * stride + (token[:, None] * stride + dim[None, :])
    inside = (first + token < limit)[:, None] & (dim < D)[None, :]
    tl.store(pointers, tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def load_row_terms(terms, first, limit, OTHER: tl.constexpr, BLOCK: tl.constexpr, MASK_TOKENS: tl.constexpr):
    """One number per token from `first` on; OTHER behind `limit`."""
    token = first + tl.arange(0, BLOCK)
    if MASK_TOKENS:  # noqa: SIM108 (a branch on a constexpr: the other side is not compiled)
        term = tl.load(terms + token, mask=token < limit, other=OTHER)
    else:
        term = tl.load(terms + token)
    return term


@triton.jit
def load_times(times, first, limit, BLOCK: tl.constexpr):
    """Times of the tokens from `first` on; behind `limit` the last token's, which keeps the range of a tile."""
    token = tl.minimum(first + tl.arange(0, BLOCK), limit - 1)
    return tl.load(times + tl.maximum(token, 0))

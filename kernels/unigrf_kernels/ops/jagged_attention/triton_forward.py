"""Forward kernel: one program computes one query tile of one head against the key tiles it sees."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import (
    LOG2_E,
    add_position_bias,
    add_time_bias,
    key_tiles,
    load_tile,
    open_last_tokens,
    open_work,
    sigmoid,
    store_tile,
    tile_indices,
    time_bounds,
    visible,
)


@triton.jit
def attend(
    accumulator,
    row_max,
    sum_exp,
    query,
    first_asked,
    last_asked,
    first_row,
    first_col,
    length,
    history,
    k,
    v,
    query_times,
    key_times,
    position_bias,
    time_bias,
    thresholds,
    near_thresholds,
    scale,
    window,
    num_positions,
    last_bucket,
    k_stride: tl.constexpr,
    v_stride: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SOFTMAX: tl.constexpr,
    HAS_CANDIDATES: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_POSITION_BIAS: tl.constexpr,
    HAS_TIME_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Add one key tile. Softmax keeps a running `row_max` and `sum_exp` of each row, in base 2; silu neither."""
    key = load_tile(k, first_col, length, k_stride, D, BLOCK_N, BLOCK_D, MASKED)
    scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    if HAS_POSITION_BIAS:
        scores = add_position_bias(
            scores, first_row, first_col, history, position_bias, num_positions, BLOCK_M, BLOCK_N, False,
            HAS_CANDIDATES,
        )  # fmt: skip
    if HAS_TIME_BIAS:
        first_happened, last_happened = time_bounds(key_times, first_col, length, BLOCK_N)
        scores, _, _, _ = add_time_bias(
            scores, first_asked, last_asked, first_happened, last_happened, query_times, key_times,
            first_row, first_col, length, time_bias, thresholds, near_thresholds, last_bucket,
            BLOCK_M, BLOCK_N, False,
        )  # fmt: skip
    value = load_tile(v, first_col, length, v_stride, D, BLOCK_N, BLOCK_D, MASKED)
    if SOFTMAX:
        scores = scores * LOG2_E
        if MASKED:
            rows, cols = tile_indices(first_row, first_col, BLOCK_M, BLOCK_N, False)
            seen = visible(rows, cols, history, window, HAS_CANDIDATES, HAS_WINDOW)
            scores = tl.where(seen, scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        # A row may see no key of a masked tile nor of those before it: -inf less -inf would be NaN.
        reference = tl.where(new_max == -float("inf"), 0.0, new_max) if MASKED else new_max
        weights = tl.exp2(scores - reference[:, None])
        rescale = tl.exp2(row_max - reference)
        sum_exp = sum_exp * rescale + tl.sum(weights, 1)
        accumulator = accumulator * rescale[:, None]
        row_max = new_max
    else:
        weights = scores * sigmoid(scores)
        if MASKED:
            rows, cols = tile_indices(first_row, first_col, BLOCK_M, BLOCK_N, False)
            seen = visible(rows, cols, history, window, HAS_CANDIDATES, HAS_WINDOW)
            weights = tl.where(seen, weights, 0.0)
    accumulator = tl.dot(weights.to(value.dtype), value, accumulator, input_precision=PRECISION)
    return accumulator, row_max, sum_exp


@triton.jit
def forward_kernel(
    q,
    k,
    v,
    out,
    lse,
    work,
    offsets,
    query_offsets,
    num_candidates,
    position_bias,
    time_bias,
    thresholds,
    near_thresholds,
    query_times,
    key_times,
    scale,
    inverse_length,
    window,
    num_positions,
    num_buckets,
    last_bucket,
    num_tokens,
    q_stride: tl.constexpr,
    q_head_stride,
    k_stride: tl.constexpr,
    k_head_stride,
    v_stride: tl.constexpr,
    v_head_stride,
    out_stride: tl.constexpr,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SOFTMAX: tl.constexpr,
    HAS_CANDIDATES: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_POSITION_BIAS: tl.constexpr,
    HAS_TIME_BIAS: tl.constexpr,
    LAST_TOKENS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid: work items times heads, heads fastest: programs that share keys run together and meet in L2.

    With LAST_TOKENS the queries are those of each sequence's last tokens. Rows count from the sequence's start
    all the same, so that `query_start` is where its first token's query would stand.
    """
    item = tl.program_id(0) // HEADS
    head = tl.program_id(0) % HEADS
    start, length, history, rank = open_work(work, offsets, num_candidates, item, HAS_CANDIDATES)
    query_start = start
    first_query = 0
    if LAST_TOKENS:
        query_start, first_query = open_last_tokens(work, query_offsets, item, length)
    first_row = first_query + tl.maximum(tl.cdiv(length - first_query, BLOCK_M) - 1 - rank, 0) * BLOCK_M

    q += query_start * q_stride + tl.cast(head, tl.int64) * q_head_stride
    k += start * k_stride + tl.cast(head // GROUP, tl.int64) * k_head_stride
    v += start * v_stride + tl.cast(head // GROUP, tl.int64) * v_head_stride
    first_asked = 0
    last_asked = 0
    if HAS_POSITION_BIAS:
        position_bias += head * num_positions
    if HAS_TIME_BIAS:
        time_bias += head * num_buckets
        query_times += query_start
        key_times += start
        first_asked, last_asked = time_bounds(query_times, first_row, length, BLOCK_M)

    query = load_tile(q, first_row, length, q_stride, D, BLOCK_M, BLOCK_D, True)
    accumulator = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    row_max = tl.full([BLOCK_M], -float("inf"), dtype=tl.float32)
    sum_exp = tl.zeros([BLOCK_M], dtype=tl.float32)
    begin, full_begin, full_end, end, self_begin, self_end = key_tiles(
        first_row, length, history, window, BLOCK_M, BLOCK_N, HAS_CANDIDATES, HAS_WINDOW
    )
    for tile in tl.range(full_begin, full_end, disable_licm=True):
        accumulator, row_max, sum_exp = attend(
            accumulator, row_max, sum_exp, query, first_asked, last_asked, first_row, tile * BLOCK_N,
            length, history, k, v, query_times, key_times, position_bias, time_bias, thresholds, near_thresholds,
            scale, window, num_positions, last_bucket, k_stride, v_stride,
            D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
            HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, False,
        )  # fmt: skip
    # The tiles that need the mask, in one loop: candidates that see themselves, the window's edge, the diagonal.
    num_self = self_end - self_begin
    num_left = full_begin - begin
    for step in tl.range(num_self + num_left + end - full_end, disable_licm=True):
        tile = self_begin + step
        if step >= num_self:
            tile = begin + step - num_self
        if step >= num_self + num_left:
            tile = full_end + step - num_self - num_left
        accumulator, row_max, sum_exp = attend(
            accumulator, row_max, sum_exp, query, first_asked, last_asked, first_row, tile * BLOCK_N,
            length, history, k, v, query_times, key_times, position_bias, time_bias, thresholds, near_thresholds,
            scale, window, num_positions, last_bucket, k_stride, v_stride,
            D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
            HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, True,
        )  # fmt: skip

    if SOFTMAX:
        accumulator = accumulator / sum_exp[:, None]
        row = first_row + tl.arange(0, BLOCK_M)
        tl.store(
            lse + head.to(tl.int64) * num_tokens + query_start + row, row_max + tl.log2(sum_exp), mask=row < length
        )
    else:
        accumulator = accumulator * inverse_length
    out += query_start * out_stride + head * D
    store_tile(out, accumulator, first_row, length, out_stride, D, BLOCK_M, BLOCK_D)

"""Backward kernel for keys and values: one program owns one key tile of one key head and visits the query tiles
that see it. Nothing is shared between programs, so the sums have a fixed order.
"""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import (
    LOG2_E,
    add_position_bias,
    add_time_bias,
    load_tile,
    load_times,
    open_work,
    query_tiles,
    sigmoid,
    store_tile,
    tile_indices,
    visible,
)


@triton.jit
def gather_gradient(
    key_gradient,
    value_gradient,
    key,
    value,
    happened,
    first_row,
    first_col,
    length,
    history,
    q,
    grad,
    lse,
    delta,
    query_times,
    position_bias,
    time_bias,
    thresholds,
    scale,
    window,
    num_positions,
    last_bucket,
    q_stride,
    grad_stride,
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
    """Add what one query tile sends back. All tiles are `[keys, queries]`, so that each is a left operand in
    registers for the product that follows. Rows behind the sequence's end load as zero and send nothing.
    """
    query = load_tile(q, first_row, length, q_stride, D, BLOCK_M, BLOCK_D, True)
    scores = tl.dot(key, tl.trans(query), input_precision=PRECISION) * scale
    if HAS_POSITION_BIAS:
        scores = add_position_bias(
            scores, first_row, first_col, history, position_bias, num_positions, BLOCK_M, BLOCK_N, True,
            HAS_CANDIDATES,
        )  # fmt: skip
    if HAS_TIME_BIAS:
        asked = load_times(query_times, first_row, length, BLOCK_M)
        scores, _, _, _ = add_time_bias(scores, asked, happened, time_bias, thresholds, last_bucket, True)
    row = first_row + tl.arange(0, BLOCK_M)
    upstream = load_tile(grad, first_row, length, grad_stride, D, BLOCK_M, BLOCK_D, True)
    weights_slope = scores
    if SOFTMAX:
        normaliser = tl.load(lse + row, mask=row < length, other=float("inf"))
        weights = tl.exp2(scores * LOG2_E - normaliser[None, :])
    else:
        gate = sigmoid(scores)
        weights = scores * gate
        weights_slope = gate + weights * (1.0 - gate)
    if MASKED:
        rows, cols = tile_indices(first_row, first_col, BLOCK_M, BLOCK_N, True)
        seen = visible(rows, cols, history, window, HAS_CANDIDATES, HAS_WINDOW)
        weights = tl.where(seen, weights, 0.0)
    value_gradient = tl.dot(weights.to(upstream.dtype), upstream, value_gradient, input_precision=PRECISION)
    sent = tl.dot(value, tl.trans(upstream), input_precision=PRECISION)
    if SOFTMAX:
        mean = tl.load(delta + row, mask=row < length, other=0.0)
        sent = weights * (sent - mean[None, :])
    else:
        sent = sent * weights_slope
        if MASKED:
            sent = tl.where(seen, sent, 0.0)
    key_gradient = tl.dot(sent.to(query.dtype), query, key_gradient, input_precision=PRECISION)
    return key_gradient, value_gradient


@triton.jit
def key_gradient_kernel(
    q,
    k,
    v,
    grad,
    lse,
    delta,
    k_grad,
    v_grad,
    work,
    offsets,
    num_candidates,
    position_bias,
    time_bias,
    thresholds,
    query_times,
    key_times,
    scale,
    inverse_length,
    window,
    num_positions,
    num_buckets,
    last_bucket,
    num_tokens,
    q_stride,
    q_head_stride,
    k_stride,
    k_head_stride,
    v_stride,
    v_head_stride,
    grad_stride,
    k_grad_stride,
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
    PRECISION: tl.constexpr,
):
    """Grid: work items times key heads, heads fastest. The first key tile has the most work."""
    key_heads: tl.constexpr = HEADS // GROUP
    item = tl.program_id(0) // key_heads
    key_head = tl.program_id(0) % key_heads
    start, length, history, rank = open_work(work, offsets, num_candidates, item, HAS_CANDIDATES)
    first_col = rank * BLOCK_N

    k += start * k_stride + key_head * k_head_stride
    v += start * v_stride + key_head * v_head_stride
    happened = 0
    if HAS_TIME_BIAS:
        query_times += start
        happened = load_times(key_times + start, first_col, length, BLOCK_N)
    key = load_tile(k, first_col, length, k_stride, D, BLOCK_N, BLOCK_D, True)
    value = load_tile(v, first_col, length, v_stride, D, BLOCK_N, BLOCK_D, True)
    key_gradient = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    value_gradient = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    begin, full_begin, full_end, end = query_tiles(
        first_col, length, history, window, BLOCK_M, BLOCK_N, HAS_CANDIDATES, HAS_WINDOW
    )
    num_left = full_begin - begin
    for member in range(GROUP):
        head = key_head * GROUP + member
        head_q = q + start * q_stride + head * q_head_stride
        head_grad = grad + start * grad_stride + head * D
        head_lse = lse
        head_delta = delta
        head_position_bias = position_bias
        head_time_bias = time_bias
        if SOFTMAX:
            head_lse = lse + tl.cast(head, tl.int64) * num_tokens + start
            head_delta = delta + tl.cast(head, tl.int64) * num_tokens + start
        if HAS_POSITION_BIAS:
            head_position_bias = position_bias + head * num_positions
        if HAS_TIME_BIAS:
            head_time_bias = time_bias + head * num_buckets
        for tile in range(full_begin, full_end):
            key_gradient, value_gradient = gather_gradient(
                key_gradient, value_gradient, key, value, happened, tile * BLOCK_M, first_col, length, history,
                head_q, head_grad, head_lse, head_delta, query_times, head_position_bias, head_time_bias,
                thresholds, scale, window, num_positions, last_bucket, q_stride, grad_stride,
                D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
                HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, False,
            )  # fmt: skip
        for step in range(num_left + end - full_end):
            tile = begin + step
            if step >= num_left:
                tile = full_end + step - num_left
            key_gradient, value_gradient = gather_gradient(
                key_gradient, value_gradient, key, value, happened, tile * BLOCK_M, first_col, length, history,
                head_q, head_grad, head_lse, head_delta, query_times, head_position_bias, head_time_bias,
                thresholds, scale, window, num_positions, last_bucket, q_stride, grad_stride,
                D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
                HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, True,
            )  # fmt: skip

    base = start * k_grad_stride + key_head * D
    key_gradient = key_gradient * (scale * inverse_length)
    value_gradient = value_gradient * inverse_length
    store_tile(k_grad + base, key_gradient, first_col, length, k_grad_stride, D, BLOCK_N, BLOCK_D)
    store_tile(v_grad + base, value_gradient, first_col, length, k_grad_stride, D, BLOCK_N, BLOCK_D)

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
    load_row_terms,
    load_tile,
    open_work,
    query_tiles,
    sigmoid,
    store_tile,
    tile_indices,
    time_bounds,
    visible,
)


@triton.jit
def gather_gradient(
    key_gradient,
    value_gradient,
    key,
    value,
    first_happened,
    last_happened,
    first_row,
    first_col,
    length,
    history,
    q,
    grad,
    lse,
    delta,
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
    q_stride: tl.constexpr,
    grad_stride: tl.constexpr,
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
    NEEDS_KEY: tl.constexpr,
    NEEDS_VALUE: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Add what one query tile contributes. All tiles are `[keys, queries]`, so that each is a left operand in
    registers for the product that follows. Rows behind the sequence's end load as zero and contribute nothing.

    Weights are rounded to the dtype of the operands before they are needed again: that halves their registers.
    """
    query = load_tile(q, first_row, length, q_stride, D, BLOCK_M, BLOCK_D, MASKED)
    scores = tl.dot(key, tl.trans(query), input_precision=PRECISION) * scale
    if HAS_POSITION_BIAS:
        scores = add_position_bias(
            scores, first_row, first_col, history, position_bias, num_positions, BLOCK_M, BLOCK_N, True,
            HAS_CANDIDATES,
        )  # fmt: skip
    if HAS_TIME_BIAS:
        first_asked, last_asked = time_bounds(query_times, first_row, length, BLOCK_M)
        scores, _, _, _ = add_time_bias(
            scores, first_asked, last_asked, first_happened, last_happened, query_times, key_times,
            first_row, first_col, length, time_bias, thresholds, near_thresholds, last_bucket,
            BLOCK_M, BLOCK_N, True,
        )  # fmt: skip
    upstream = load_tile(grad, first_row, length, grad_stride, D, BLOCK_M, BLOCK_D, MASKED)
    if SOFTMAX:
        normaliser = load_row_terms(lse, first_row, length, float("inf"), BLOCK_M, MASKED)
        weights = tl.exp2(scores * LOG2_E - normaliser[None, :])
    else:
        gate = sigmoid(scores)
        weights = scores * gate
        slope = gate + weights * (1.0 - gate)
    if MASKED:
        rows, cols = tile_indices(first_row, first_col, BLOCK_M, BLOCK_N, True)
        seen = visible(rows, cols, history, window, HAS_CANDIDATES, HAS_WINDOW)
        weights = tl.where(seen, weights, 0.0)
        if not SOFTMAX:
            slope = tl.where(seen, slope, 0.0)
    weights = weights.to(upstream.dtype)
    if NEEDS_VALUE:
        value_gradient = tl.dot(weights, upstream, value_gradient, input_precision=PRECISION)
    if NEEDS_KEY:
        dweights = tl.dot(value, tl.trans(upstream), input_precision=PRECISION)
        if SOFTMAX:
            slope = weights.to(tl.float32)
            dweights -= load_row_terms(delta, first_row, length, 0.0, BLOCK_M, MASKED)[None, :]
        key_gradient = tl.dot((dweights * slope).to(query.dtype), query, key_gradient, input_precision=PRECISION)
    return key_gradient, value_gradient


@triton.jit
def sweep(
    key,
    value,
    first_happened,
    last_happened,
    first_col,
    start,
    length,
    history,
    key_head,
    q,
    grad,
    lse,
    delta,
    query_times,
    key_times,
    position_bias,
    time_bias,
    thresholds,
    near_thresholds,
    scale,
    window,
    num_positions,
    num_buckets,
    last_bucket,
    num_tokens,
    q_stride: tl.constexpr,
    q_head_stride,
    grad_stride: tl.constexpr,
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
    NEEDS_KEY: tl.constexpr,
    NEEDS_VALUE: tl.constexpr,
):
    """Visit all query tiles of all heads that use this key head; returns both gradients, zeros if not needed."""
    key_gradient = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    value_gradient = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    begin, full_begin, full_end, end = query_tiles(
        first_col, length, history, window, BLOCK_M, BLOCK_N, HAS_CANDIDATES, HAS_WINDOW
    )
    num_left = full_begin - begin
    for member in tl.range(GROUP, disable_licm=True):
        head = key_head * GROUP + member
        head_q = q + start * q_stride + tl.cast(head, tl.int64) * q_head_stride
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
        for tile in tl.range(full_begin, full_end, disable_licm=True):
            key_gradient, value_gradient = gather_gradient(
                key_gradient, value_gradient, key, value, first_happened, last_happened, tile * BLOCK_M,
                first_col, length, history,
                head_q, head_grad, head_lse, head_delta, query_times, key_times, head_position_bias,
                head_time_bias,
                thresholds, near_thresholds, scale, window, num_positions, last_bucket, q_stride, grad_stride,
                D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
                HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, NEEDS_KEY, NEEDS_VALUE, False,
            )  # fmt: skip
        for step in tl.range(num_left + end - full_end, disable_licm=True):
            tile = begin + step
            if step >= num_left:
                tile = full_end + step - num_left
            key_gradient, value_gradient = gather_gradient(
                key_gradient, value_gradient, key, value, first_happened, last_happened, tile * BLOCK_M,
                first_col, length, history,
                head_q, head_grad, head_lse, head_delta, query_times, key_times, head_position_bias,
                head_time_bias,
                thresholds, near_thresholds, scale, window, num_positions, last_bucket, q_stride, grad_stride,
                D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
                HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, NEEDS_KEY, NEEDS_VALUE, True,
            )  # fmt: skip
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
    grad_stride: tl.constexpr,
    k_grad_stride: tl.constexpr,
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
    SPLIT: tl.constexpr,
):
    """Grid: work items times key heads, heads fastest. The first key tile has the most work.

    With SPLIT the values' gradient comes first and the keys' after it, each in a sweep of its own: one more
    product for every four, and half the accumulators, for head widths where both do not fit the registers.
    """
    key_heads: tl.constexpr = HEADS // GROUP
    item = tl.program_id(0) // key_heads
    key_head = tl.program_id(0) % key_heads
    start, length, history, rank = open_work(work, offsets, num_candidates, item, HAS_CANDIDATES)
    first_col = rank * BLOCK_N

    k += start * k_stride + tl.cast(key_head, tl.int64) * k_head_stride
    v += start * v_stride + tl.cast(key_head, tl.int64) * v_head_stride
    first_happened = 0
    last_happened = 0
    if HAS_TIME_BIAS:
        query_times += start
        key_times += start
        first_happened, last_happened = time_bounds(key_times, first_col, length, BLOCK_N)
    key = load_tile(k, first_col, length, k_stride, D, BLOCK_N, BLOCK_D, True)
    value = load_tile(v, first_col, length, v_stride, D, BLOCK_N, BLOCK_D, True)
    base = start * k_grad_stride + key_head * D
    if SPLIT:
        _, value_gradient = sweep(
            key, value, first_happened, last_happened, first_col, start, length, history, key_head,
            q, grad, lse, delta, query_times, key_times, position_bias, time_bias, thresholds, near_thresholds,
            scale, window, num_positions, num_buckets, last_bucket, num_tokens,
            q_stride, q_head_stride, grad_stride,
            GROUP, D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
            HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, False, True,
        )  # fmt: skip
        value_gradient *= inverse_length
        store_tile(v_grad + base, value_gradient, first_col, length, k_grad_stride, D, BLOCK_N, BLOCK_D)
        key_gradient, _ = sweep(
            key, value, first_happened, last_happened, first_col, start, length, history, key_head,
            q, grad, lse, delta, query_times, key_times, position_bias, time_bias, thresholds, near_thresholds,
            scale, window, num_positions, num_buckets, last_bucket, num_tokens,
            q_stride, q_head_stride, grad_stride,
            GROUP, D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
            HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, True, False,
        )  # fmt: skip
    else:
        key_gradient, value_gradient = sweep(
            key, value, first_happened, last_happened, first_col, start, length, history, key_head,
            q, grad, lse, delta, query_times, key_times, position_bias, time_bias, thresholds, near_thresholds,
            scale, window, num_positions, num_buckets, last_bucket, num_tokens,
            q_stride, q_head_stride, grad_stride,
            GROUP, D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
            HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, True, True,
        )  # fmt: skip
        value_gradient *= inverse_length
        store_tile(v_grad + base, value_gradient, first_col, length, k_grad_stride, D, BLOCK_N, BLOCK_D)
    key_gradient *= scale * inverse_length
    store_tile(k_grad + base, key_gradient, first_col, length, k_grad_stride, D, BLOCK_N, BLOCK_D)

"""Backward kernel for queries and for both bias tables: one program owns one query tile of one head.

The bias tables are sums over all pairs of a batch. Each program adds up its own tile's part and writes it to a
row of its own; `triton_reduce` adds the rows. So there are no atomics, and the order of the sums is fixed.
"""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .triton_products import row_products
from .triton_tiles import (
    LOG2_E,
    add_position_bias,
    add_time_bias,
    key_tiles,
    load_row_terms,
    load_tile,
    open_work,
    sigmoid,
    store_tile,
    tile_indices,
    time_bounds,
    visible,
)


@triton.jit
def score_gradient(
    query,
    upstream,
    first_asked,
    last_asked,
    normaliser,
    mean,
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
    """Gradient of a tile's scores `[queries, keys]`; the key tile; the buckets and their range (or dummies)."""
    key = load_tile(k, first_col, length, k_stride, D, BLOCK_N, BLOCK_D, MASKED)
    in_parts: tl.constexpr = BLOCK_D > 128 and k.dtype.element_ty == tl.float32
    scores = row_products(query, key, in_parts, PRECISION) * scale
    bucket = 0
    lowest = 0
    highest = 0
    if HAS_POSITION_BIAS:
        scores = add_position_bias(
            scores, first_row, first_col, history, position_bias, num_positions, BLOCK_M, BLOCK_N, False,
            HAS_CANDIDATES,
        )  # fmt: skip
    if HAS_TIME_BIAS:
        first_happened, last_happened = time_bounds(key_times, first_col, length, BLOCK_N)
        scores, bucket, lowest, highest = add_time_bias(
            scores, first_asked, last_asked, first_happened, last_happened, query_times, key_times,
            first_row, first_col, length, time_bias, thresholds, near_thresholds, last_bucket,
            BLOCK_M, BLOCK_N, False,
        )  # fmt: skip
    value = load_tile(v, first_col, length, v_stride, D, BLOCK_N, BLOCK_D, MASKED)
    dweights = row_products(upstream, value, in_parts, PRECISION)
    if SOFTMAX:
        dscores = tl.exp2(scores * LOG2_E - normaliser[:, None]) * (dweights - mean[:, None])
    else:
        gate = sigmoid(scores)
        dscores = dweights * (gate + scores * gate * (1.0 - gate))
    if MASKED:
        rows, cols = tile_indices(first_row, first_col, BLOCK_M, BLOCK_N, False)
        dscores = tl.where(visible(rows, cols, history, window, HAS_CANDIDATES, HAS_WINDOW), dscores, 0.0)
    return dscores, key, bucket, lowest, highest


@triton.jit
def sum_diagonals(dscores, origin, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HAS_CANDIDATES: tl.constexpr):
    """Sums of a tile along its diagonals `row - column`: those from 0 up, and those from -BLOCK_M up.

    Column c is rotated up by c, so that a diagonal becomes a row: what was not wrapped around lies on diagonal
    `row`, the rest on `row - BLOCK_M`. Candidates, which begin at row `origin`, all stand at the same position:
    their rows are added into the first of them.
    """
    row = tl.arange(0, BLOCK_M)[:, None]
    column = tl.arange(0, BLOCK_N)[None, :]
    if HAS_CANDIDATES:
        folded = tl.sum(tl.where(row >= origin, dscores, 0.0), 0)
        dscores = tl.where(row == tl.maximum(origin, 0), folded[None, :], dscores)
        dscores = tl.where(row > tl.maximum(origin, 0), 0.0, dscores)
    turned = tl.gather(dscores, (row + column) % BLOCK_M, 0)
    wrapped = row + column >= BLOCK_M
    return tl.sum(tl.where(wrapped, 0.0, turned), 1), tl.sum(tl.where(wrapped, turned, 0.0), 1)


@triton.jit
def write_sums(sums, distances, is_final, position_row, far, num_positions):
    """Write sums by relative position to the program's row; those at the last position or beyond go to `far`."""
    near = (distances >= 0) & (distances < num_positions - 1)
    tl.store(position_row + distances, sums, mask=near & is_final)
    return far + tl.sum(tl.where((distances >= num_positions - 1) & is_final, sums, 0.0))


@triton.jit
def query_gradient_kernel(
    q,
    k,
    v,
    grad,
    lse,
    delta,
    q_grad,
    position_rows,
    time_rows,
    extents,
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
    first_item,
    q_stride: tl.constexpr,
    q_head_stride,
    k_stride: tl.constexpr,
    k_head_stride,
    v_stride: tl.constexpr,
    v_head_stride,
    grad_stride: tl.constexpr,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    SOFTMAX: tl.constexpr,
    HAS_CANDIDATES: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_POSITION_BIAS: tl.constexpr,
    HAS_TIME_BIAS: tl.constexpr,
    POSITION_GRADIENT: tl.constexpr,
    TIME_GRADIENT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid: work items from `first_item` on, times heads, heads fastest.

    With a bias gradient all tiles go through one loop with the mask, from the oldest key tile to the newest (so do
    those of `row_products` in parts: two loops spill). A tile's sums by relative position reach over BLOCK_M +
    BLOCK_N - 1 positions, of which later tiles touch all but the BLOCK_N highest: those are written, the others
    wait in `carry`. BLOCK_N divides BLOCK_M.
    """
    item = tl.program_id(0) // HEADS
    head = tl.program_id(0) % HEADS
    start, length, history, rank = open_work(work, offsets, num_candidates, first_item + item, HAS_CANDIDATES)
    first_row = tl.maximum(tl.cdiv(length, BLOCK_M) - 1 - rank, 0) * BLOCK_M

    q += start * q_stride + tl.cast(head, tl.int64) * q_head_stride
    k += start * k_stride + tl.cast(head // GROUP, tl.int64) * k_head_stride
    v += start * v_stride + tl.cast(head // GROUP, tl.int64) * v_head_stride
    grad += start * grad_stride + head * D
    first_asked = 0
    last_asked = 0
    normaliser = 0.0
    mean = 0.0
    if HAS_POSITION_BIAS:
        position_bias += head * num_positions
    if HAS_TIME_BIAS:
        time_bias += head * num_buckets
        query_times += start
        key_times += start
        first_asked, last_asked = time_bounds(query_times, first_row, length, BLOCK_M)
    if SOFTMAX:
        line = head.to(tl.int64) * num_tokens + start
        normaliser = load_row_terms(lse + line, first_row, length, float("inf"), BLOCK_M, True)
        mean = load_row_terms(delta + line, first_row, length, 0.0, BLOCK_M, True)
    query = load_tile(q, first_row, length, q_stride, D, BLOCK_M, BLOCK_D, True)
    upstream = load_tile(grad, first_row, length, grad_stride, D, BLOCK_M, BLOCK_D, True)

    query_gradient = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    begin, full_begin, full_end, end, self_begin, self_end = key_tiles(
        first_row, length, history, window, BLOCK_M, BLOCK_N, HAS_CANDIDATES, HAS_WINDOW
    )
    in_parts: tl.constexpr = BLOCK_D > 128 and k.dtype.element_ty == tl.float32
    if POSITION_GRADIENT or TIME_GRADIENT or in_parts:
        full_begin = end
        full_end = end
    else:
        for tile in tl.range(full_begin, full_end, disable_licm=True):
            dscores, key, _, _, _ = score_gradient(
                query, upstream, first_asked, last_asked, normaliser, mean, first_row, tile * BLOCK_N,
                length, history,
                k, v, query_times, key_times, position_bias, time_bias, thresholds, near_thresholds,
                scale, window, num_positions, last_bucket, k_stride, v_stride,
                D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
                HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, False,
            )  # fmt: skip
            query_gradient = tl.dot(dscores.to(key.dtype), key, query_gradient, input_precision=PRECISION)

    position_row = position_rows
    far = 0.0
    self_sum = 0.0
    carry = tl.zeros([BLOCK_M], dtype=tl.float32)
    diagonal = tl.arange(0, BLOCK_M)
    origin = tl.minimum(first_row, history)
    slot = tl.arange(0, BLOCK_B)
    by_bucket = tl.zeros([BLOCK_B], dtype=tl.float32)
    if POSITION_GRADIENT:
        position_row += (item.to(tl.int64) * HEADS + head) * (num_positions + HAS_CANDIDATES)

    num_self = self_end - self_begin
    num_left = full_begin - begin
    for step in tl.range(num_self + num_left + end - full_end, disable_licm=True):
        tile = self_begin + step
        if step >= num_self:
            tile = begin + step - num_self
        if step >= num_self + num_left:
            tile = full_end + step - num_self - num_left
        first_col = tile * BLOCK_N
        dscores, key, bucket, lowest, highest = score_gradient(
            query, upstream, first_asked, last_asked, normaliser, mean, first_row, first_col, length, history,
            k, v, query_times, key_times, position_bias, time_bias, thresholds, near_thresholds,
            scale, window, num_positions, last_bucket, k_stride, v_stride,
            D, BLOCK_M, BLOCK_N, BLOCK_D, SOFTMAX, HAS_CANDIDATES, HAS_WINDOW,
            HAS_POSITION_BIAS, HAS_TIME_BIAS, PRECISION, True,
        )  # fmt: skip
        query_gradient = tl.dot(dscores.to(key.dtype), key, query_gradient, input_precision=PRECISION)
        if TIME_GRADIENT:
            for number in range(lowest, highest + 1):
                part = tl.sum(tl.where(bucket == number, dscores, 0.0))
                by_bucket = tl.where(slot == number, by_bucket + part, by_bucket)
        if POSITION_GRADIENT:
            if HAS_CANDIDATES:
                rows, cols = tile_indices(first_row, first_col, BLOCK_M, BLOCK_N, False)
                is_self = (rows == cols) & (cols >= history)
                self_sum += tl.sum(tl.where(is_self, dscores, 0.0))
                dscores = tl.where(is_self, 0.0, dscores)
            upper, lower = sum_diagonals(dscores, history - first_row, BLOCK_M, BLOCK_N, HAS_CANDIDATES)
            upper += carry
            is_highest = diagonal >= BLOCK_M - BLOCK_N
            # Self-attending candidates come first: their sums are in self_sum and leave nothing to write here.
            is_final = is_highest & (step >= num_self)
            distances = origin - first_col + diagonal
            far = write_sums(upper, distances, is_final, position_row, far, num_positions)
            carry = tl.gather(tl.where(is_highest, lower, upper), (diagonal + BLOCK_M - BLOCK_N) % BLOCK_M, 0)

    store_tile(
        q_grad + start * HEADS * D + head * D,
        query_gradient * (scale * inverse_length),
        first_row, length, HEADS * D, D, BLOCK_M, BLOCK_D,
    )  # fmt: skip
    reach = origin - begin * BLOCK_N + BLOCK_M
    if POSITION_GRADIENT or TIME_GRADIENT:
        tl.store(extents + item, tl.where(length > 0, reach, 0))
    if TIME_GRADIENT:
        time_row = time_rows + (item.to(tl.int64) * HEADS + head) * num_buckets
        tl.store(time_row + slot, by_bucket, mask=slot < num_buckets)
    if POSITION_GRADIENT:
        distances = origin - end * BLOCK_N + diagonal
        far = write_sums(carry, distances, diagonal >= 0, position_row, far, num_positions)
        tl.store(position_row + num_positions - 1, far, mask=reach >= num_positions)
        if HAS_CANDIDATES:
            tl.store(position_row + num_positions, self_sum)

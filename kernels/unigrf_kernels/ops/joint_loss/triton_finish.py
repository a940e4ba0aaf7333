"""Join the splits of a tile of entries with the positives and the users' own negatives."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .triton_rows import LN_2, inverse_norm, load_vectors, log_one_plus, store_vectors, through_norm


@triton.jit
def finish_kernel(
    hidden,
    rows,
    positives,
    positive_ids,
    weights,
    positive_log_q,
    users,
    user_directions,
    user_negative_ids,
    peaks,
    totals,
    sums,
    own_exponents,
    losses,
    highest,
    shares,
    row_gradients,
    squares,
    positive_gradients,
    num_entries,
    num_splits,
    num_own,
    scale,
    inverse_temperature,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NORMALIZE: tl.constexpr,
    ROW_GRADIENT: tl.constexpr,
    POSITIVE_GRADIENT: tl.constexpr,
):
    """Grid: tiles of entries. ``num_own`` is the number of a user's own negatives.

    Writes per entry the weighted loss, the highest exponent, the weight over the sum of exponentials (both, since
    the logarithm of the sum would round a probability near one off) and the exponents of its user's own
    negatives; ROW_GRADIENT: the hidden row's gradient and its squared norm.
    """
    entry = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = entry < num_entries
    row = tl.load(rows + entry, mask=live, other=0)
    query = load_vectors(hidden, row, live, D, BLOCK_D).to(tl.float32)
    query_inverse = inverse_norm(query, NORMALIZE)
    query = query * query_inverse[:, None]
    positive = load_vectors(positives, entry, live, D, BLOCK_D).to(tl.float32)
    positive_inverse = inverse_norm(positive, NORMALIZE)
    positive = positive * positive_inverse[:, None]
    exponent = tl.sum(query * positive, 1) * scale
    if positive_log_q is not None:
        exponent -= tl.load(positive_log_q + entry, mask=live, other=0.0)

    # Of the negatives only; the positive joins at the end.
    peak = exponent
    total = tl.zeros([BLOCK_P], dtype=tl.float32)
    gradient = tl.zeros([BLOCK_P, BLOCK_D], dtype=tl.float32)
    place = entry
    for _ in range(num_splits):
        other_peak = tl.load(peaks + place, mask=live, other=0.0)
        higher = tl.maximum(peak, other_peak)
        shrink = tl.exp2(peak - higher)
        other_shrink = tl.exp2(other_peak - higher)
        total = total * shrink + tl.load(totals + place, mask=live, other=0.0) * other_shrink
        if ROW_GRADIENT:
            part = load_vectors(sums, place, live, D, BLOCK_D)
            gradient = gradient * shrink[:, None] + part * other_shrink[:, None]
        peak = higher
        place += num_entries
    if user_directions is not None:
        own_id = tl.load(positive_ids + entry, mask=live, other=0)
        user = tl.load(users + entry, mask=live, other=0)
        for number in range(num_own):
            place = user * num_own + number
            negative_id = tl.load(user_negative_ids + place, mask=live, other=-1)
            allowed = (negative_id != -1) & (negative_id != own_id)
            negative = load_vectors(user_directions, place, allowed, D, BLOCK_D).to(tl.float32)
            own_exponent = tl.where(allowed, tl.sum(query * negative, 1) * scale, -float("inf"))
            tl.store(own_exponents + entry * num_own + number, own_exponent, mask=live)
            higher = tl.maximum(peak, own_exponent)
            shrink = tl.exp2(peak - higher)
            exponential = tl.exp2(own_exponent - higher)
            total = total * shrink + exponential
            gradient = gradient * shrink[:, None] + negative * exponential[:, None]
            peak = higher

    rest = total
    own = tl.exp2(exponent - peak)
    total += own
    # A small loss is what the negatives add to the positive; a large one would overflow that quotient.
    is_small = rest < own
    loss = log_one_plus(tl.where(is_small, rest / tl.where(is_small, own, 1.0), 0.0))
    loss = tl.where(is_small, loss, (peak + tl.log2(total) - exponent) * LN_2)
    weight = tl.full([BLOCK_P], 1.0, dtype=tl.float32)
    if weights is not None:
        weight = tl.load(weights + entry, mask=live, other=0.0).to(tl.float32)
    tl.store(losses + entry, weight * loss, mask=live)
    share = weight / total
    tl.store(highest + entry, peak, mask=live)
    tl.store(shares + entry, share, mask=live)
    # Weight times the positive's probability minus one, without the cancellation.
    pull = -rest * share * inverse_temperature
    if ROW_GRADIENT:
        gradient = gradient * (share * inverse_temperature)[:, None] + positive * pull[:, None]
        gradient = through_norm(gradient, query, query_inverse, NORMALIZE)
        store_vectors(row_gradients, entry, live, gradient, D, BLOCK_D)
        tl.store(squares + entry, tl.sum(gradient * gradient, 1), mask=live)
    if POSITIVE_GRADIENT:
        gradient = through_norm(query * pull[:, None], positive, positive_inverse, NORMALIZE)
        store_vectors(positive_gradients, entry, live, gradient, D, BLOCK_D)

"""Join the column splits of a tile of pairs with their positives and per-user negatives."""

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
    split_max,
    split_sum_exp,
    weighted_sums,
    user_exponents,
    losses,
    row_max,
    row_scale,
    row_gradients,
    sq_norms,
    positive_gradients,
    num_pairs,
    num_splits,
    num_user_negatives,
    scale,
    inverse_temperature,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NORMALIZE: tl.constexpr,
    ROW_GRADIENT: tl.constexpr,
    POSITIVE_GRADIENT: tl.constexpr,
):
    """Grid: tiles of pairs. ``num_user_negatives`` is the ``M`` of `joint_loss`.

    Writes per pair the weighted loss, the largest exponent and the weight over the sum of exponentials (kept
    apart: a logarithm of that sum would round probabilities near one), and the exponents of its user's negatives.
    With ROW_GRADIENT also the hidden row's gradient and its squared norm. Exponents are logits to base 2.
    """
    pair = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    valid = pair < num_pairs
    row = tl.load(rows + pair, mask=valid, other=0)
    query = load_vectors(hidden, row, valid, D, BLOCK_D).to(tl.float32)
    query_inverse = inverse_norm(query, NORMALIZE)
    query = query * query_inverse[:, None]
    positive = load_vectors(positives, pair, valid, D, BLOCK_D).to(tl.float32)
    positive_inverse = inverse_norm(positive, NORMALIZE)
    positive = positive * positive_inverse[:, None]
    exponent = tl.sum(query * positive, 1) * scale
    if positive_log_q is not None:
        exponent -= tl.load(positive_log_q + pair, mask=valid, other=0.0)

    # The maximum starts from the positive; the sum is of the negatives alone until the positive joins at the end.
    running_max = exponent
    sum_exp = tl.zeros([BLOCK_P], dtype=tl.float32)
    gradient = tl.zeros([BLOCK_P, BLOCK_D], dtype=tl.float32)
    index = pair
    for _ in range(num_splits):
        other_max = tl.load(split_max + index, mask=valid, other=0.0)
        new_max = tl.maximum(running_max, other_max)
        rescale = tl.exp2(running_max - new_max)
        other_rescale = tl.exp2(other_max - new_max)
        sum_exp = sum_exp * rescale + tl.load(split_sum_exp + index, mask=valid, other=0.0) * other_rescale
        if ROW_GRADIENT:
            part = load_vectors(weighted_sums, index, valid, D, BLOCK_D)
            gradient = gradient * rescale[:, None] + part * other_rescale[:, None]
        running_max = new_max
        index += num_pairs
    if user_directions is not None:
        positive_id = tl.load(positive_ids + pair, mask=valid, other=0)
        user = tl.load(users + pair, mask=valid, other=0)
        for number in range(num_user_negatives):
            index = user * num_user_negatives + number
            negative_id = tl.load(user_negative_ids + index, mask=valid, other=-1)
            allowed = (negative_id != -1) & (negative_id != positive_id)
            negative = load_vectors(user_directions, index, allowed, D, BLOCK_D).to(tl.float32)
            user_exponent = tl.where(allowed, tl.sum(query * negative, 1) * scale, -float("inf"))
            tl.store(user_exponents + pair * num_user_negatives + number, user_exponent, mask=valid)
            new_max = tl.maximum(running_max, user_exponent)
            rescale = tl.exp2(running_max - new_max)
            exponential = tl.exp2(user_exponent - new_max)
            sum_exp = sum_exp * rescale + exponential
            gradient = gradient * rescale[:, None] + negative * exponential[:, None]
            running_max = new_max

    negative_sum_exp = sum_exp
    positive_exp = tl.exp2(exponent - running_max)
    sum_exp += positive_exp
    # log(1 + negatives / positive) keeps the digits of a small loss; for a large one the quotient would overflow.
    is_small = negative_sum_exp < positive_exp
    loss = log_one_plus(tl.where(is_small, negative_sum_exp / tl.where(is_small, positive_exp, 1.0), 0.0))
    loss = tl.where(is_small, loss, (running_max + tl.log2(sum_exp) - exponent) * LN_2)
    weight = tl.full([BLOCK_P], 1.0, dtype=tl.float32)
    if weights is not None:
        weight = tl.load(weights + pair, mask=valid, other=0.0).to(tl.float32)
    tl.store(losses + pair, weight * loss, mask=valid)
    pair_scale = weight / sum_exp
    tl.store(row_max + pair, running_max, mask=valid)
    tl.store(row_scale + pair, pair_scale, mask=valid)
    # weight * (probability of the positive - 1), written without its cancellation; the factor 1 / temperature
    # takes it from the logit to the inner product of the two directions.
    dlogit = -negative_sum_exp * pair_scale * inverse_temperature
    if ROW_GRADIENT:
        gradient = gradient * (pair_scale * inverse_temperature)[:, None] + positive * dlogit[:, None]
        gradient = through_norm(gradient, query, query_inverse, NORMALIZE)
        store_vectors(row_gradients, pair, valid, gradient, D, BLOCK_D)
        tl.store(sq_norms + pair, tl.sum(gradient * gradient, 1), mask=valid)
    if POSITIVE_GRADIENT:
        gradient = through_norm(query * dlogit[:, None], positive, positive_inverse, NORMALIZE)
        store_vectors(positive_gradients, pair, valid, gradient, D, BLOCK_D)

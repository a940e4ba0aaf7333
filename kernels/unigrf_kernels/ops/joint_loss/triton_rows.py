"""Pieces that the kernels share, and the kernels that work on rows of vectors alone.

Legend: a vector tile is ``[BLOCK, BLOCK_D]``, ``BLOCK_D`` the power of two that holds ``D``; zero beyond ``D``.
Exponents are to base 2: logits carry the factor log2(e), for which the hardware has an instruction.
"""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .problem import EPSILON

LEAST_NORM = tl.constexpr(EPSILON)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def load_vectors(base, index, live, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Vectors number `index` (any integer type), zero where not `live`."""
    column = tl.arange(0, BLOCK_D)
    inside = live[:, None]
    if D != BLOCK_D:
        inside = inside & (column < D)[None, :]
    return tl.load(base + index.to(tl.int64)[:, None] * D + column[None, :], mask=inside, other=0.0)


@triton.jit
def store_vectors(base, index, live, values, D: tl.constexpr, BLOCK_D: tl.constexpr):
    column = tl.arange(0, BLOCK_D)
    inside = live[:, None]
    if D != BLOCK_D:
        inside = inside & (column < D)[None, :]
    tl.store(base + index.to(tl.int64)[:, None] * D + column[None, :], values, mask=inside)


@triton.jit
def inverse_norm(vectors, NORMALIZE: tl.constexpr):
    """One over each row's norm, or 1 where vectors are taken as they are."""
    if NORMALIZE:
        return 1.0 / tl.maximum(tl.sqrt(tl.sum(vectors * vectors, 1)), LEAST_NORM)
    return tl.sum(vectors, 1) * 0.0 + 1.0


@triton.jit
def through_norm(gradient, unit, inverse, NORMALIZE: tl.constexpr):
    """From the gradient of `unit` to that of the vector it was made of."""
    if NORMALIZE:
        along = tl.sum(gradient * unit, 1)
        # Below the least norm the divisor is a constant: nothing is projected out.
        along = tl.where(inverse < 1.0 / LEAST_NORM, along, 0.0)
        gradient = (gradient - along[:, None] * unit) * inverse[:, None]
    return gradient


@triton.jit
def log_one_plus(small):
    """log(1 + x) for small positive numbers, exact where adding 1 loses the digits of x (Kahan's correction)."""
    raised = 1.0 + small
    lost = raised - 1.0
    return tl.where(lost == 0.0, small, tl.log(raised) * (small / tl.where(lost == 0.0, 1.0, lost)))


@triton.jit
def masked_bits(words, column, live, num_words, first, BLOCK_K: tl.constexpr, AXIS: tl.constexpr):
    """Whether each entry's mask has each column's bit set; entries along axis `AXIS`, columns along the other.

    `words` points at each entry's row of the mask, `first` is the tile's first column; the tile starts at a word
    or lies in one. A word per entry and 32 columns is loaded, not one per pair: the rest is arithmetic.
    """
    bit = tl.expand_dims(column % 32, AXIS)
    which = tl.expand_dims(column // 32 - first // 32, AXIS)
    chosen = tl.zeros([1, 1], dtype=tl.int32)
    for number in tl.static_range((BLOCK_K + 31) // 32):
        inside = live & (first // 32 + number < num_words)
        word = tl.load(words + first // 32 + number, mask=inside, other=0)
        chosen = tl.where(which == number, tl.expand_dims(word, 1 - AXIS), chosen)
    return ((chosen >> bit) & 1) != 0


@triton.jit
def direction_kernel(
    vectors,
    rows,
    directions,
    count,
    factor,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NORMALIZE: tl.constexpr,
):
    """Directions of the vectors, or of those that `rows` names, times `factor`, in the vectors' dtype.

    Grid: tiles of `BLOCK` directions.
    """
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = index < count
    row = index
    if rows is not None:
        row = tl.load(rows + index, mask=live, other=0)
    values = load_vectors(vectors, row, live, D, BLOCK_D).to(tl.float32)
    values = values * (factor * inverse_norm(values, NORMALIZE))[:, None]
    store_vectors(directions, index, live, values, D, BLOCK_D)


@triton.jit
def reduce_kernel(
    partials,
    vectors,
    gradients,
    count,
    num_splits,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NORMALIZE: tl.constexpr,
):
    """Sum `partials` ``[S, N, D]`` in order and take the sum back through the normalisation.

    Grid: tiles of `BLOCK` vectors.
    """
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = index < count
    total = load_vectors(partials, index, live, D, BLOCK_D)
    place = index
    for _ in range(1, num_splits):
        place += count
        total += load_vectors(partials, place, live, D, BLOCK_D)
    unit = load_vectors(vectors, index, live, D, BLOCK_D).to(tl.float32)
    inverse = inverse_norm(unit, NORMALIZE)
    total = through_norm(total, unit * inverse[:, None], inverse, NORMALIZE)
    store_vectors(gradients, index, live, total, D, BLOCK_D)


@triton.jit
def merge_kernel(
    sorted_rows,
    order,
    gradients,
    squares,
    count,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Add up the gradients of entries that share a hidden row, into the first of them; the others become zero.

    `order` sorts the entries by hidden row, stably. The program that holds the first entry of a row does all of
    the row's work, so nothing is touched twice. `squares` follow; entries that share nothing are not read.
    Grid: tiles of `BLOCK` places in the order.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = place < count
    row = tl.load(sorted_rows + place, mask=live, other=-1)
    before = tl.load(sorted_rows + place - 1, mask=live & (place > 0), other=-1)
    after = tl.load(sorted_rows + place + 1, mask=place + 1 < count, other=-1)
    shared = live & (row != before) & (row == after)
    owner = tl.load(order + place, mask=shared, other=0)
    total = load_vectors(gradients, owner, shared, D, BLOCK_D)
    zeros = tl.zeros([BLOCK, BLOCK_D], dtype=tl.float32)
    follows = shared
    step = 1
    while tl.max(follows.to(tl.int32), 0) > 0:
        entry = tl.load(order + place + step, mask=follows, other=0)
        total += load_vectors(gradients, entry, follows, D, BLOCK_D)
        store_vectors(gradients, entry, follows, zeros, D, BLOCK_D)
        tl.store(squares + entry, tl.zeros([BLOCK], dtype=tl.float32), mask=follows)
        step += 1
        follows = follows & (place + step < count)
        follows = follows & (tl.load(sorted_rows + place + step, mask=follows, other=-1) == row)
    store_vectors(gradients, owner, shared, total, D, BLOCK_D)
    tl.store(squares + owner, tl.sum(total * total, 1), mask=shared)

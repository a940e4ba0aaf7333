"""Pieces that the kernels share, and the kernels that work on vectors row by row.

A vector tile is ``[BLOCK, BLOCK_D]``, ``BLOCK_D`` the power of two that holds ``D``; zero beyond ``D``.
Exponents are to base 2: logits carry the factor log2(e), for which the hardware has an instruction.
"""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .problem import EPSILON

LEAST_NORM = tl.constexpr(EPSILON)
LARGE = tl.constexpr(2.0**55)
SMALLER = tl.constexpr(2.0**-70)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def load_vectors(base, index, valid, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Vectors number `index` (any integer type), zero where not `valid`."""
    column = tl.arange(0, BLOCK_D)
    inside = valid[:, None]
    if D != BLOCK_D:
        inside = inside & (column < D)[None, :]
    return tl.load(base + index.to(tl.int64)[:, None] * D + column[None, :], mask=inside, other=0.0)


@triton.jit
def store_vectors(base, index, valid, values, D: tl.constexpr, BLOCK_D: tl.constexpr):
    column = tl.arange(0, BLOCK_D)
    inside = valid[:, None]
    if D != BLOCK_D:
        inside = inside & (column < D)[None, :]
    tl.store(base + index.to(tl.int64)[:, None] * D + column[None, :], values, mask=inside)


@triton.jit
def inverse_norm(vectors, NORMALIZE: tl.constexpr):
    """One over each row's norm, or 1 where vectors are taken as they are.

    The squares of large numbers would overflow, so those are made smaller first, exactly, by a power of two.
    """
    if NORMALIZE:
        is_large = tl.max(tl.abs(vectors), 1) > LARGE
        factor = tl.where(is_large, SMALLER, 1.0)
        scaled = vectors * factor[:, None]
        return factor / tl.maximum(tl.sqrt(tl.sum(scaled * scaled, 1)), LEAST_NORM)
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
def masked_bits(words, column, valid, num_words, first, BLOCK_K: tl.constexpr, AXIS: tl.constexpr):
    """Whether each pair's mask has each column's bit set; pairs along axis `AXIS`, columns along the other.

    `words` points at each pair's row of the mask, `first` is the tile's first column; the tile starts at a word
    or lies in one. One word is loaded for 32 columns; the bits are taken apart by arithmetic.
    """
    bit = tl.expand_dims(column % 32, AXIS)
    which = tl.expand_dims(column // 32 - first // 32, AXIS)
    chosen = tl.zeros([1, 1], dtype=tl.int32)
    for number in tl.static_range((BLOCK_K + 31) // 32):
        inside = valid & (first // 32 + number < num_words)
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
    """Directions of all `vectors`, or of their rows `rows`, times `factor`, in the vectors' dtype.

    A direction has unit length with NORMALIZE, else it is the vector itself.

    Grid: tiles of `BLOCK` directions.
    """
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = index < count
    row = index
    if rows is not None:
        row = tl.load(rows + index, mask=valid, other=0)
    values = load_vectors(vectors, row, valid, D, BLOCK_D).to(tl.float32)
    values = values * (factor * inverse_norm(values, NORMALIZE))[:, None]
    store_vectors(directions, index, valid, values, D, BLOCK_D)


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
    valid = index < count
    total = load_vectors(partials, index, valid, D, BLOCK_D)
    position = index
    for _ in range(1, num_splits):
        position += count
        total += load_vectors(partials, position, valid, D, BLOCK_D)
    unit = load_vectors(vectors, index, valid, D, BLOCK_D).to(tl.float32)
    inverse = inverse_norm(unit, NORMALIZE)
    total = through_norm(total, unit * inverse[:, None], inverse, NORMALIZE)
    store_vectors(gradients, index, valid, total, D, BLOCK_D)


@triton.jit
def merge_kernel(
    sorted_rows,
    order,
    gradients,
    sq_norms,
    count,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Add up the gradients that belong to one hidden row, into the first of them; the others become zero.

    Serves both tasks: a gradient is that of a query-positive pair or of a ranking example. `order` sorts them by
    hidden row, stably. The program that holds the first gradient of a row does all of the row's work, so nothing
    is written twice. `sq_norms` are kept up to date; the gradient of a row that occurs once is not read.
    Grid: tiles of `BLOCK` positions in `order`.
    """
    position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = position < count
    row = tl.load(sorted_rows + position, mask=valid, other=-1)
    before = tl.load(sorted_rows + position - 1, mask=valid & (position > 0), other=-1)
    after = tl.load(sorted_rows + position + 1, mask=position + 1 < count, other=-1)
    shared = valid & (row != before) & (row == after)
    owner = tl.load(order + position, mask=shared, other=0)
    total = load_vectors(gradients, owner, shared, D, BLOCK_D)
    zeros = tl.zeros([BLOCK, BLOCK_D], dtype=tl.float32)
    follows = shared
    step = 1
    while tl.max(follows.to(tl.int32), 0) > 0:
        duplicate = tl.load(order + position + step, mask=follows, other=0)
        total += load_vectors(gradients, duplicate, follows, D, BLOCK_D)
        store_vectors(gradients, duplicate, follows, zeros, D, BLOCK_D)
        tl.store(sq_norms + duplicate, tl.zeros([BLOCK], dtype=tl.float32), mask=follows)
        step += 1
        follows = follows & (position + step < count)
        follows = follows & (tl.load(sorted_rows + position + step, mask=follows, other=-1) == row)
    store_vectors(gradients, owner, shared, total, D, BLOCK_D)
    tl.store(sq_norms + owner, tl.sum(total * total, 1), mask=shared)

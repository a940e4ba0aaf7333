"""Small kernels around the attention: the list of work, the softmax row term, the sum of the bias rows."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def work_list_kernel(offsets, work, num_sequences, num_items, BLOCK: tl.constexpr, CHUNK: tl.constexpr):
    """Pairs (sequence, rank) of all tiles of BLOCK tokens, longest sequence first, int32 `[num_items, 2]`.

    Rank 0 is a sequence's most expensive tile. The number of tiles is known on the device only; `num_items` is
    an upper bound, and fillers have sequence -1. Program b writes the tiles of sequence b, behind those of all
    longer sequences (ties by number); the last program writes the fillers. All tiles of a sequence stand
    together, so that programs which run at the same time find its keys in L2.
    """
    program = tl.program_id(0)
    is_filler = program == num_sequences
    index = tl.minimum(program, num_sequences - 1)
    length = tl.load(offsets + index + 1) - tl.load(offsets + index)
    length = tl.where(is_filler, -1, length)
    lane = tl.arange(0, CHUNK)
    first = 0
    for chunk in range(0, num_sequences, CHUNK):
        other = chunk + lane
        exists = other < num_sequences
        begin = tl.load(offsets + other, mask=exists, other=0)
        other_length = tl.load(offsets + other + 1, mask=exists, other=0) - begin
        precedes = exists & ((other_length > length) | ((other_length == length) & (other < program)))
        first += tl.sum(tl.where(precedes, tl.cdiv(other_length, BLOCK), 0).to(tl.int32))
    count = tl.where(is_filler, num_items - first, tl.cdiv(length, BLOCK).to(tl.int32))
    sequence = tl.where(is_filler, -1, program)
    for chunk in range(0, count, CHUNK):
        rank = chunk + lane
        item = work + 2 * (first + rank)
        tl.store(item, sequence + tl.zeros([CHUNK], tl.int32), mask=rank < count)
        tl.store(item + 1, tl.where(is_filler, 0, rank), mask=rank < count)


@triton.jit
def row_term_kernel(
    grad, out, delta, num_tokens, stride, HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """delta [H, T] = <grad, out> per row: the mean of softmax's upstream gradient under its own weights."""
    head = tl.program_id(0) % HEADS
    token = (tl.program_id(0) // HEADS).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    dim = tl.arange(0, BLOCK_D)
    offset = token[:, None] * stride + head * D + dim[None, :]
    inside = (token < num_tokens)[:, None] & (dim < D)[None, :]
    product = tl.load(grad + offset, mask=inside, other=0.0).to(tl.float32)
    product *= tl.load(out + offset, mask=inside, other=0.0).to(tl.float32)
    tl.store(delta + head.to(tl.int64) * num_tokens + token, tl.sum(product, 1), mask=token < num_tokens)


@triton.jit
def sum_rows_kernel(
    rows,
    extents,
    sums,
    num_items,
    width,
    limit,
    HEADS: tl.constexpr,
    ITEMS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """sums [groups, H, width] = rows [num_items, H, width] added over each group's run of items.

    Of a row, only the first `extents[item]` columns were written, and those from `limit` on if any were.
    """
    head = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    group = tl.program_id(2)
    group_items = tl.cdiv(num_items, tl.num_programs(2))
    stop = tl.minimum((group + 1) * group_items, num_items)
    total = tl.zeros([COLUMNS], dtype=tl.float32)
    for first in range(group * group_items, stop, ITEMS):
        item = first + tl.arange(0, ITEMS)
        extent = tl.load(extents + item, mask=item < stop, other=0)[:, None]
        written = (column[None, :] < extent) | ((column[None, :] >= limit) & (extent > 0))
        offset = (item.to(tl.int64) * HEADS + head)[:, None] * width + column[None, :]
        total += tl.sum(tl.load(rows + offset, mask=written & (column < width)[None, :], other=0.0), 0)
    tl.store(sums + (group * HEADS + head).to(tl.int64) * width + column, total, mask=column < width)

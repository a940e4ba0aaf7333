"""The parts that the Triton kernels are made of: buckets, the list of work, which tiles are visited."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from unigrf_kernels.ops.jagged_attention import triton_tiles
from unigrf_kernels.ops.jagged_attention.buckets import BUCKET_WIDTH, bucket_thresholds, time_buckets
from unigrf_kernels.ops.jagged_attention.reference import structure
from unigrf_kernels.ops.jagged_attention.triton_reduce import work_list_kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def bucket_kernel(differences, thresholds, buckets, last_bucket, num_values, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    difference = tl.load(differences + index, mask=index < num_values, other=0)
    bucket = triton_tiles.time_buckets(difference, 0, thresholds, last_bucket)
    tl.store(buckets + index, bucket, mask=index < num_values)


@pytest.mark.parametrize("num_buckets", [1, 2, 5, 40, 73, 128, 1000])
def test_buckets_are_those_of_the_definition_around_every_threshold(num_buckets: int) -> None:
    edges = [
        edge + shift for edge in bucket_thresholds(1000) for shift in (-2, -1, 0, 1, 2) if edge + shift < 2**63
    ]
    values = [0, 1, 2, 3, 2**24 + 1, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, *edges]
    differences = torch.tensor([*values, *(-value for value in values)], dtype=torch.int64, device=DEVICE)
    thresholds = torch.tensor((0, *bucket_thresholds(num_buckets)), dtype=torch.int64, device=DEVICE)
    buckets = torch.empty_like(differences, dtype=torch.int32)
    grid = (-(-differences.numel() // 256),)
    bucket_kernel[grid](differences, thresholds, buckets, thresholds.numel() - 1, differences.numel(), BLOCK=256)
    assert torch.equal(buckets, time_buckets(differences, num_buckets))


def test_estimate_constants_belong_to_the_bucket_width() -> None:
    """The kernel's estimate is written for one width: 2^32 / 2^23 times the buckets of an octave."""
    exact = 2**9 * 0.6931471805599453 / BUCKET_WIDTH
    assert abs(triton_tiles._ESTIMATE_FACTOR.value - exact) < 0.5


@settings(max_examples=30)
@given(st.lists(st.integers(0, 90), max_size=12), st.sampled_from([16, 32]))
def test_work_list_holds_every_tile_once_and_long_sequences_first(lengths: list[int], block: int) -> None:
    offsets = torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0).to(DEVICE)
    num_items = sum(lengths) // block + len(lengths)
    work = torch.full((num_items, 2), 77, dtype=torch.int32, device=DEVICE)
    if num_items:
        work_list_kernel[(len(lengths) + 1,)](offsets, work, len(lengths), num_items, BLOCK=block, CHUNK=16)
    items = work.tolist()
    real = [tuple(item) for item in items if item[0] >= 0]
    tiles = [(number, rank) for number, length in enumerate(lengths) for rank in range(-(-length // block))]
    assert sorted(real) == tiles
    assert items[len(real) :] == [[-1, 0]] * (num_items - len(real))
    order = [(-lengths[number], number, rank) for number, rank in real]
    assert order == sorted(order)


@triton.jit
def key_tiles_kernel(
    out, first_row, length, history, window, M: tl.constexpr, N: tl.constexpr, C: tl.constexpr, W: tl.constexpr
):
    a, b, c, d, e, f = triton_tiles.key_tiles(first_row, length, history, window, M, N, C, W)
    tl.store(out, a)
    tl.store(out + 1, b)
    tl.store(out + 2, c)
    tl.store(out + 3, d)
    tl.store(out + 4, e)
    tl.store(out + 5, f)


@triton.jit
def query_tiles_kernel(
    out, first_col, length, history, window, M: tl.constexpr, N: tl.constexpr, C: tl.constexpr, W: tl.constexpr
):
    a, b, c, d = triton_tiles.query_tiles(first_col, length, history, window, M, N, C, W)
    tl.store(out, a)
    tl.store(out + 1, b)
    tl.store(out + 2, c)
    tl.store(out + 3, d)


@st.composite
def structures(draw: st.DrawFn) -> tuple[int, int | None, int | None, int, int]:
    length = draw(st.integers(1, 100))
    candidates = draw(st.one_of(st.none(), st.integers(0, length)))
    window = draw(st.one_of(st.none(), st.integers(1, 110)))
    return length, candidates, window, draw(st.sampled_from([16, 32])), draw(st.sampled_from([16, 32]))


def visible_tiles(length: int, candidates: int | None, window: int | None, rows: int, cols: int) -> torch.Tensor:
    """Number of visible pairs in each tile, and of pairs that exist."""
    _, visible = structure(length, candidates or 0, window, torch.device("cpu"))
    tall, wide = -(-length // rows), -(-length // cols)
    padded = torch.zeros(2, tall * rows, wide * cols)
    padded[0, :length, :length] = visible.float()
    # A key behind the end must never be taken for visible; a query behind it does no harm.
    padded[1, :length, :] = 1
    return padded.view(2, tall, rows, wide, cols).sum((2, 4))


@settings(max_examples=60)
@given(structures())
def test_query_tile_visits_exactly_the_key_tiles_it_sees(
    case: tuple[int, int | None, int | None, int, int],
) -> None:
    length, candidates, window, rows, cols = case
    seen, exists = visible_tiles(length, candidates, window, rows, cols)
    for tile in range(seen.shape[0]):
        out = torch.empty(6, dtype=torch.int32, device=DEVICE)
        key_tiles_kernel[(1,)](
            out, tile * rows, length, length - (candidates or 0), window or 0,
            M=rows, N=cols, C=candidates is not None, W=window is not None,
        )  # fmt: skip
        begin, full_begin, full_end, end, self_begin, self_end = out.tolist()
        masked = [*range(begin, full_begin), *range(full_end, end), *range(self_begin, self_end)]
        full = list(range(full_begin, full_end))
        assert len(set(masked + full)) == len(masked) + len(full)
        assert all(seen[tile, n] == exists[tile, n] for n in full)
        assert set(seen[tile].nonzero().flatten().tolist()) <= set(masked + full)
        wasted = [n for n in masked if seen[tile, n] == 0]
        assert len(wasted) <= 1, "at most the tile that a window's first row has just left"


@settings(max_examples=60)
@given(structures())
def test_key_tile_visits_exactly_the_query_tiles_that_see_it(
    case: tuple[int, int | None, int | None, int, int],
) -> None:
    length, candidates, window, rows, cols = case
    seen, exists = visible_tiles(length, candidates, window, rows, cols)
    for tile in range(seen.shape[1]):
        out = torch.empty(4, dtype=torch.int32, device=DEVICE)
        query_tiles_kernel[(1,)](
            out, tile * cols, length, length - (candidates or 0), window or 0,
            M=rows, N=cols, C=candidates is not None, W=window is not None,
        )  # fmt: skip
        begin, full_begin, full_end, end = out.tolist()
        full = list(range(full_begin, full_end))
        assert all(seen[m, tile] == exists[m, tile] for m in full)
        assert set(seen[:, tile].nonzero().flatten().tolist()) <= set(range(begin, end))

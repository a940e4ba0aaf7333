"""How a batch is divided into blocks: which tokens pair up, and where each visible pair of tokens lies."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unigrf_kernels.ops.jagged_attention import torch_schedule
from unigrf_kernels.ops.jagged_attention.reference import structure
from unigrf_kernels.ops.jagged_attention.torch_blocks import Cells, Layout
from unigrf_kernels.ops.jagged_attention.torch_schedule import make_schedule

PAIRS, SHIFTED, SINGLE = Cells(2, 0), Cells(2, 1), Cells(1, 0)


def cells_of(
    lengths: list[int], asked: list[int], happened: list[int], candidates: list[int] | None = None
) -> Cells:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    ahead = None if candidates is None else torch.tensor(candidates)
    return make_schedule(offsets, ahead, None, torch.tensor(asked), torch.tensor(happened)).cells


@pytest.mark.parametrize(
    ("lengths", "asked", "happened", "candidates", "expected"),
    [
        ([4], [1, 1, 2, 2], [1, 1, 2, 2], None, PAIRS),
        ([4], [1, 2, 2, 2], [1, 1, 2, 2], None, SHIFTED),
        ([4], [1, 1, 2, 2], [1, 1, 2, 3], None, SINGLE),
        ([4], [1, 2, 3, 3], [1, 1, 2, 2], None, SINGLE),
        ([3, 2], [1, 1, 2, 5, 5], [1, 1, 2, 5, 5], None, PAIRS),
        ([3, 3], [1, 2, 2, 2, 5, 5], [1, 1, 2, 2, 2, 5], None, SHIFTED),
        ([1, 1], [1, 2], [3, 4], None, PAIRS),
        ([0, 0], [], [], None, SINGLE),
        # Candidates pair among themselves, from the first of them on.
        ([5], [1, 1, 7, 7, 7], [1, 1, 7, 7, 7], [3], PAIRS),
        ([5], [1, 7, 8, 8, 8], [1, 1, 7, 7, 7], [3], SHIFTED),
        ([3], [1, 1, 2], [1, 1, 2], [2], SINGLE),
    ],
)
def test_tokens_that_share_a_time_pair_up(
    lengths: list[int], asked: list[int], happened: list[int], candidates: list[int] | None, expected: Cells
) -> None:
    assert cells_of(lengths, asked, happened, candidates) == expected


def test_without_times_there_is_nothing_to_pair() -> None:
    assert make_schedule(torch.tensor([0, 4]), None, None, None, None).cells == SINGLE


def visible_pairs(lengths: list[int], candidates: list[int], window: int | None) -> set[tuple[int, int]]:
    """(query, key) packed tokens, from the reference's own mask."""
    pairs, start = set(), 0
    for length, ahead in zip(lengths, candidates, strict=True):
        _, visible = structure(length, ahead, window, torch.device("cpu"))
        pairs |= {(start + int(i), start + int(j)) for i, j in visible.nonzero()}
        start += length
    return pairs


def covered_pairs(layout: Layout) -> Counter[tuple[int, int]]:
    """How often a pair of real tokens lies in a block, visible or not."""
    pairs: Counter[tuple[int, int]] = Counter()
    for group in layout.groups:
        query_tokens = group.queries.tokens.masked_fill(~group.queries.is_real, -1)[:, None]
        key_tokens = group.keys.tokens.masked_fill(~group.keys.is_real, -1)[:, None]
        for block in group.blocks:
            asking = block.queries(query_tokens)[..., 0]
            for phase in range(block.phases):
                key = block.keys(key_tokens, phase)[..., 0]
                for sequence in range(block.sequences):
                    queries = [i for i in asking[sequence].tolist() if i >= 0]
                    keys = [j for j in key[sequence].tolist() if j >= 0]
                    pairs.update((i, j) for i in queries for j in keys)
    return pairs


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=5),
    st.one_of(st.none(), st.integers(1, 30)),
    st.sampled_from([SINGLE, PAIRS, SHIFTED]),
    st.sampled_from([3, 8, 96]),
    st.sampled_from([1, 200, 100_000]),
)
def test_every_visible_pair_lies_in_one_block(
    sizes: list[tuple[int, int]],
    window: int | None,
    cells: Cells,
    queries_per_block: int,
    scores_per_block: int,
) -> None:
    lengths = [length for length, _ in sizes]
    candidates = [min(length, ahead) for length, ahead in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_schedule, "QUERY_TOKENS_PER_BLOCK", queries_per_block)
        patch.setattr(torch_schedule, "SCORES_PER_BLOCK", scores_per_block)
        patch.setattr(torch_schedule, "_find_cells", lambda *_: cells)
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        schedule = make_schedule(offsets, torch.tensor(candidates, dtype=torch.int64), window, None, None)
    for layout in (schedule.forward, schedule.backward):
        covered = covered_pairs(layout)
        assert set(covered) >= visible_pairs(lengths, candidates, window)
        assert max(covered.values(), default=1) == 1


def test_few_candidates_share_a_block_with_their_history_in_forward_only() -> None:
    most = torch_schedule.MAX_CANDIDATES_BESIDE_HISTORY
    for count, beside in ((most, True), (most + 1, False)):
        schedule = make_schedule(torch.tensor([0, 200]), torch.tensor([count]), None, None, None)
        for layout, expected in ((schedule.forward, beside), (schedule.backward, False)):
            found = [bool(block.rows) for block in layout.groups[0].blocks if block.candidate_rows]
            assert found == [expected]


def test_long_sequences_become_tiles_linear_in_their_length() -> None:
    """A quadratic tile of 16,384 tokens would be a gigabyte."""
    schedule = make_schedule(torch.tensor([0, 16_384]), None, None, None, None)
    largest = max(block.shape[3] * block.shape[4] for group in schedule.forward.groups for block in group.blocks)
    assert largest <= torch_schedule.QUERY_TOKENS_PER_BLOCK * 16_384


def test_little_is_computed_in_vain() -> None:
    """128 sequences of 20 to 400 tokens: at most 1.5 scores for each visible pair."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 201, (128,), generator=generator) * 2
    times = torch.zeros(int(lengths.sum()), dtype=torch.int64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    schedule = make_schedule(offsets, None, None, times, times)
    scores = sum(torch.Size(block.shape).numel() for group in schedule.forward.groups for block in group.blocks)
    assert scores <= 1.5 * int((lengths * (lengths + 1) // 2).sum())

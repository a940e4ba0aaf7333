"""Rows and times of tokens, with users that have no event."""

from __future__ import annotations

import torch

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.tokens import pack, token_layout

# Users of 0, 2, 1 and 0 events.
BATCH = JaggedBatch(
    item_ids=torch.tensor([7, 8, 9]),
    behaviours=torch.zeros(3, dtype=torch.int64),
    timestamps=torch.tensor([5, 9, 7]),
    offsets=torch.tensor([0, 0, 2, 3, 3]),
    user_ids=torch.arange(4),
)


def test_without_candidates_items_and_behaviours_alternate() -> None:
    layout = token_layout(BATCH, max_length=6, query_time_visible=True)
    assert layout.positions.tolist() == [0, 1, 0]
    assert layout.token_positions.tolist() == [0, 1, 2, 3, 0, 1]
    assert (layout.item_rows.tolist(), layout.behaviour_rows.tolist()) == ([0, 2, 4], [1, 3, 5])
    assert layout.last_rows[1:3].tolist() == [3, 5]
    assert layout.last_rows.min() >= 0  # an arbitrary row, but one, where nothing comes before
    assert layout.candidate_rows.shape == (4, 0)
    assert layout.order is None
    assert layout.attention.num_candidates is None
    assert layout.attention.max_length == 6
    assert layout.attention.offsets.tolist() == [0, 0, 4, 6, 6]


def test_candidates_move_the_rows_behind_them() -> None:
    layout = token_layout(BATCH, max_length=6, query_time_visible=True, num_candidates=3)
    # c c c | i b i b c c c | i b c c c | c c c
    assert layout.attention.offsets.tolist() == [0, 3, 10, 15, 18]
    assert layout.candidate_rows.tolist() == [[0, 1, 2], [7, 8, 9], [12, 13, 14], [15, 16, 17]]
    assert (layout.item_rows.tolist(), layout.behaviour_rows.tolist()) == ([3, 5, 10], [4, 6, 11])
    assert layout.last_rows[1:3].tolist() == [6, 11]
    assert layout.last_rows.min() >= 0
    assert layout.token_positions.tolist() == [0] * 3 + [0, 1, 2, 3, 4, 4, 4] + [0, 1, 2, 2, 2] + [0] * 3
    assert layout.attention.max_length == 9
    attention = layout.attention
    assert attention.num_candidates is not None
    assert attention.query_times is not None
    assert attention.key_times is not None
    assert attention.num_candidates.tolist() == [3] * 4
    assert attention.query_times.tolist() == [0] * 3 + [5, 9, 9, 9, 9, 9, 9] + [7] * 5 + [0] * 3
    assert attention.key_times.tolist() == [0] * 3 + [5, 5, 9, 9, 9, 9, 9] + [7] * 5 + [0] * 3


def test_rows_of_vectors_are_packed_whole() -> None:
    layout = token_layout(BATCH, max_length=6, query_time_visible=False, num_candidates=1)
    items, behaviours, candidates = (torch.arange(2.0 * n).view(n, 2) + at for n, at in ((3, 0), (3, 10), (4, 20)))
    packed = pack(items, behaviours, candidates, layout.order)
    assert packed[layout.item_rows].equal(items)
    assert packed[layout.behaviour_rows].equal(behaviours)
    assert packed[layout.candidate_rows.flatten()].equal(candidates)
    assert packed.shape == (10, 2)


def test_users_without_events_have_candidates_at_time_zero() -> None:
    layout = token_layout(JaggedBatch.empty(), max_length=2, query_time_visible=True, num_candidates=2)
    assert layout.candidate_rows.shape == (0, 2)
    nothing = torch.zeros(0, dtype=torch.int64)
    batch = JaggedBatch(nothing, nothing, nothing, torch.tensor([0, 0]), torch.tensor([6]))
    layout = token_layout(batch, max_length=2, query_time_visible=True, num_candidates=2)
    assert layout.candidate_rows.tolist() == [[0, 1]]
    assert layout.attention.query_times is not None
    assert layout.attention.query_times.tolist() == [0, 0]

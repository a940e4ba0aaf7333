"""Interleaving: order, time and what follows what."""

from __future__ import annotations

import torch

from tests.train.small_run import global_batch, join
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.tokens import pack, token_layout


def batch_of(lengths: list[int], times: list[int]) -> JaggedBatch:
    events = sum(lengths)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    ids = torch.arange(events)
    return JaggedBatch(ids, ids, torch.tensor(times), offsets, torch.arange(len(lengths)))


def test_the_item_token_comes_before_its_behaviour_token() -> None:
    items, behaviours = torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0], [20.0]])
    assert pack(items, behaviours, None, None).flatten().tolist() == [1, 10, 2, 20]


def test_only_the_last_event_of_a_user_has_no_next_one() -> None:
    batch = batch_of([0, 2, 1, 0, 3, 0], [0] * 6)
    assert batch.has_next_event.tolist() == [True, False, False, True, True, False]


def test_an_empty_batch_has_no_tokens() -> None:
    layout = token_layout(JaggedBatch.empty(), max_length=4, query_time_visible=True)
    assert layout.positions.numel() == 0
    assert layout.attention.offsets.tolist() == [0]


def test_positions_start_anew_with_each_user() -> None:
    layout = token_layout(batch_of([2, 0, 3], [0] * 5), max_length=6, query_time_visible=False)
    assert layout.positions.tolist() == [0, 1, 0, 1, 2]
    assert layout.attention.offsets.tolist() == [0, 4, 4, 10]


def test_a_hidden_query_time_is_that_of_the_event_itself() -> None:
    attention = token_layout(batch_of([2, 1], [5, 9, 7]), max_length=4, query_time_visible=False).attention
    assert attention.query_times is not None
    assert attention.query_times.tolist() == [5, 5, 9, 9, 7, 7]


def test_a_visible_query_time_is_that_of_the_next_event_for_behaviour_tokens_only() -> None:
    attention = token_layout(batch_of([2, 1], [5, 9, 7]), max_length=4, query_time_visible=True).attention
    assert attention.query_times is not None
    assert attention.key_times is not None
    assert attention.query_times.tolist() == [5, 9, 9, 9, 7, 7]
    assert attention.key_times.tolist() == [5, 5, 9, 9, 7, 7]


def test_joined_users_keep_their_events() -> None:
    batch = join(global_batch(0, [3, 0, 2]))
    assert batch.lengths.tolist() == [3, 0, 2]
    assert batch.num_events == 5


def test_candidates_stand_behind_their_users_events() -> None:
    batch = batch_of([2, 0, 1], [5, 9, 7])
    layout = token_layout(batch, max_length=4, query_time_visible=True, num_candidates=2)
    assert layout.attention.offsets.tolist() == [0, 6, 8, 12]
    assert layout.item_rows.tolist() == [0, 2, 8]
    assert layout.candidate_rows.tolist() == [[4, 5], [6, 7], [10, 11]]
    assert layout.token_positions.tolist() == [0, 1, 2, 3, 4, 4, 0, 0, 0, 1, 2, 2]
    assert layout.attention.num_candidates is not None
    assert layout.attention.num_candidates.tolist() == [2, 2, 2]
    assert layout.attention.query_times is not None
    assert layout.attention.query_times.tolist() == [5, 9, 9, 9, 9, 9, 0, 0, 7, 7, 7, 7]
    packed = pack(torch.tensor([1, 2, 3]), torch.tensor([10, 20, 30]), torch.arange(100, 106), layout.order)
    assert packed.tolist() == [1, 10, 2, 20, 100, 101, 102, 103, 3, 30, 104, 105]

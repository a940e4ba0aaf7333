"""``JaggedBatch``: what is derived from its offsets, against plain loops over users."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unigrf_dist.data import JaggedBatch

LENGTHS = [[], [0], [3], [0, 2, 0, 0, 3, 1], [1, 1, 0], [0, 0]]


def batch_of(lengths: list[int]) -> JaggedBatch:
    events = torch.arange(sum(lengths))
    offsets = torch.tensor([sum(lengths[:user]) for user in range(len(lengths) + 1)])
    return JaggedBatch(events, events, events, offsets, 100 + torch.arange(len(lengths)))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_user_indices_repeat_each_user_by_its_length(lengths: list[int]) -> None:
    indices = batch_of(lengths).user_indices
    assert indices.tolist() == [user for user, length in enumerate(lengths) for _ in range(length)]
    assert indices.dtype == torch.int64


@pytest.mark.parametrize("lengths", LENGTHS)
def test_all_but_the_last_event_of_a_user_have_a_next(lengths: list[int]) -> None:
    has_next = batch_of(lengths).has_next_event
    assert has_next.tolist() == [event + 1 < length for length in lengths for event in range(length)]
    assert has_next.dtype == torch.bool


def test_trained_events_are_those_behind_the_context_of_their_user() -> None:
    batch = replace(batch_of([0, 2, 3, 0, 2]), context_lengths=torch.tensor([0, 1, 0, 0, 2]))
    assert batch.is_trained.tolist() == [False, True, True, True, True, False, False]
    assert batch_of([2, 1]).is_trained is None
    assert torch.equal(batch.to("cpu").context_lengths, batch.context_lengths)


def test_an_empty_batch_has_no_events() -> None:
    empty = JaggedBatch.empty()
    assert empty.user_indices.shape == empty.has_next_event.shape == (0,)


def test_moving_keeps_every_tensor_and_the_absence_of_others() -> None:
    batch = batch_of([2, 1])
    moved = batch.to("cpu")
    assert torch.equal(moved.offsets, batch.offsets)
    assert moved.prior_item_ids is None

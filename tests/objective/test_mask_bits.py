"""Mask words of a few users, bit by bit."""

from __future__ import annotations

import pytest
import torch

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.negative_mask import above_threshold_masks, seen_negative_masks
from unigrf_dist.objective.negatives import Negatives

NUM_ITEMS = 90
SIGN = -(2**31)

# Users of 3, 0 and 2 events; the first and the last have a prior history.
CODES = torch.zeros(5, dtype=torch.int64)
BATCH = JaggedBatch(
    item_ids=torch.tensor([31, 2, 31, 70, 0]),
    behaviours=CODES,
    timestamps=CODES,
    offsets=torch.tensor([0, 3, 3, 5]),
    user_ids=torch.arange(3),
    prior_item_ids=torch.tensor([33, 33, 31, 89]),
    prior_offsets=torch.tensor([0, 3, 3, 4]),
)


@pytest.mark.parametrize("distinct", [True, False])
def test_words_hold_the_seen_items_of_the_catalogue(distinct: bool) -> None:
    negatives = Negatives(torch.arange(NUM_ITEMS), distinct=distinct)
    masks = seen_negative_masks(BATCH, negatives, num_items=NUM_ITEMS)
    assert masks.dtype == torch.int32
    # Items 31 and 33 from before, then 2; items 89 (bit 25 of word 2) and 70 (bit 6 of it), then 0.
    assert masks.tolist() == [
        [SIGN, 2, 0],
        [SIGN + 4, 2, 0],
        [SIGN + 4, 2, 0],
        [0, 0, 2**25 + 2**6],
        [1, 0, 2**25 + 2**6],
    ]


@pytest.mark.parametrize(("ids", "distinct"), [([70, 5, 31], True), ([70, 31, 70, 5, 31], False)])
def test_bits_stand_where_the_items_are_negatives(ids: list[int], distinct: bool) -> None:
    masks = seen_negative_masks(BATCH, Negatives(torch.tensor(ids), distinct=distinct), num_items=NUM_ITEMS)
    bits = {item: sum(2**k for k, other in enumerate(ids) if other == item) for item in (31, 70)}
    assert masks.tolist() == [[bits[31]]] * 3 + [[bits[70]]] * 2


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize(("num", "words"), [(1, 1), (31, 1), (32, 1), (33, 2), (64, 2), (65, 3)])
def test_there_are_as_many_words_as_bits_need(num: int, words: int, distinct: bool) -> None:
    negatives = Negatives(torch.arange(num), distinct=distinct)
    assert seen_negative_masks(BATCH, negatives, num_items=NUM_ITEMS).shape == (5, words)
    above = torch.tensor([[num - 1, -1], [num, num + 1], [-1, -1]])
    masks = above_threshold_masks(above, negatives, num_items=NUM_ITEMS)
    last = 2 ** ((num - 1) % 32)
    assert masks.tolist() == [[0] * (words - 1) + [SIGN if last == 2**31 else last], [0] * words, [0] * words]


@pytest.mark.parametrize("distinct", [True, False])
def test_candidates_that_share_a_word_are_both_masked(distinct: bool) -> None:
    above = torch.tensor([[3, 0, 3, 31], [40, -1, 33, 88]])
    negatives = Negatives(torch.arange(NUM_ITEMS), distinct=distinct)
    masks = above_threshold_masks(above, negatives, num_items=NUM_ITEMS)
    assert masks.tolist() == [[SIGN + 8 + 1, 0, 0], [0, 2**8 + 2, 2**24]]
    assert masks.dtype == torch.int32


@pytest.mark.parametrize("distinct", [True, False])
def test_a_batch_without_events_or_users_has_no_masks(distinct: bool) -> None:
    negatives = Negatives(torch.arange(40), distinct=distinct)
    assert seen_negative_masks(JaggedBatch.empty(), negatives, num_items=NUM_ITEMS).shape == (0, 2)
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert above_threshold_masks(none, negatives, num_items=NUM_ITEMS).shape == (0, 2)

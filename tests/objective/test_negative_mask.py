"""Which negatives the masks hide, against Python sets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.negative_mask import above_threshold_masks, seen_negative_masks
from unigrf_dist.objective.negatives import Negatives

NUM_ITEMS = 100


def unpacked(words: Tensor, num_columns: int) -> Tensor:
    column = torch.arange(num_columns)
    return ((words[:, column // 32] >> (column % 32)) & 1).bool()


def batch_of(items: list[list[int]], prior: list[list[int]] | None = None) -> JaggedBatch:
    def flat(lists: list[list[int]]) -> Tensor:
        return torch.tensor([item for part in lists for item in part], dtype=torch.int64)

    def offsets(lists: list[list[int]]) -> Tensor:
        return torch.tensor([0, *torch.tensor([len(part) for part in lists]).cumsum(0).tolist()])

    ids = flat(items)
    return JaggedBatch(
        item_ids=ids,
        behaviours=torch.zeros_like(ids),
        timestamps=torch.zeros_like(ids),
        offsets=offsets(items),
        user_ids=torch.arange(len(items)),
        prior_item_ids=None if prior is None else flat(prior),
        prior_offsets=None if prior is None else offsets(prior),
    )


def seen_by_hand(items: list[list[int]], prior: list[list[int]], negative_ids: list[int]) -> list[list[bool]]:
    rows = []
    for events, before in zip(items, prior, strict=True):
        for event in range(len(events)):
            seen = {*before, *events[: event + 1]}
            rows.append([item in seen for item in negative_ids])
    return rows


USERS = st.lists(
    st.tuples(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.lists(st.integers(0, 20), max_size=6)),
    min_size=1,
    max_size=40,
)


@given(users=USERS, negative_ids=st.lists(st.integers(0, 22), min_size=1, max_size=70))
@settings(deadline=None)
def test_an_event_hides_what_its_user_has_seen_by_then(
    users: list[tuple[list[int], list[int]]], negative_ids: list[int]
) -> None:
    items, prior = [part[0] for part in users], [part[1] for part in users]
    for distinct in (False, True):
        ids = sorted(set(negative_ids), reverse=True) if distinct else negative_ids
        negatives = Negatives(torch.tensor(ids), distinct=distinct)
        found = seen_negative_masks(batch_of(items, prior), negatives, num_items=NUM_ITEMS)
        assert unpacked(found, len(ids)).tolist() == seen_by_hand(items, prior, ids)


@pytest.mark.parametrize("distinct", [True, False])
def test_whole_words_of_many_users_do_not_run_into_each_other(distinct: bool) -> None:
    items = [list(range(96))] * 7 + [[], [95, 31, 95]]
    negatives = Negatives(torch.arange(96), distinct=distinct)
    found = seen_negative_masks(batch_of(items), negatives, num_items=NUM_ITEMS)
    assert unpacked(found, 96).tolist() == seen_by_hand(items, [[]] * 9, list(range(96)))


@pytest.mark.parametrize("distinct", [True, False])
def test_items_above_the_threshold_are_masked_wherever_they_are_negatives(distinct: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    ids = (
        torch.randperm(NUM_ITEMS, generator=generator)[:70]
        if distinct
        else torch.randint(50, (131,), generator=generator)
    )
    above = torch.randint(-1, 50, (6, 5), generator=generator)
    above[0] = above[0, 0]  # named twice, masked once
    expected = [[item in set(row.tolist()) for item in ids.tolist()] for row in above]
    found = above_threshold_masks(above, Negatives(ids, distinct=distinct), num_items=NUM_ITEMS)
    assert unpacked(found, len(ids)).tolist() == expected

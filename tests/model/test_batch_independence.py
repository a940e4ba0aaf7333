"""What the model says of a user does not depend on who else is in the batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.small_model import CANDIDATES, Small, jagged_batch, model_config, small_model
from unigrf_dist.data.batch import JaggedBatch

NUM_USERS, NUM_CANDIDATES = CANDIDATES.shape
CASES: dict[str, dict[str, Any]] = {
    "hstu": {},
    "llama": {"model__backbone": "llama", "model__key_heads": 1},
    "query_time_visible": {"model__query_time_visible": True},
    "no_enhancer": {"objective__enhancer": None},
    "samples": {"objective__retrieval__negatives": "sampled"},
}


def only(batch: JaggedBatch, users: list[int]) -> JaggedBatch:
    """These users of ``batch``, in this order."""
    cuts = [slice(*batch.offsets[user : user + 2].tolist()) for user in users]
    assert batch.prior_item_ids is not None
    assert batch.prior_offsets is not None
    prior = [slice(*batch.prior_offsets[user : user + 2].tolist()) for user in users]

    def lengths(parts: list[slice]) -> Tensor:
        return torch.tensor([0, *(part.stop - part.start for part in parts)]).cumsum(0)

    return JaggedBatch(
        *(
            torch.cat([values[cut] for cut in cuts])
            for values in (batch.item_ids, batch.behaviours, batch.timestamps)
        ),
        offsets=lengths(cuts),
        user_ids=batch.user_ids[users],
        prior_item_ids=torch.cat([batch.prior_item_ids[part] for part in prior]),
        prior_offsets=lengths(prior),
    )


def of_users(changes: dict[str, Any], users: list[int]) -> Small:
    """The model on a batch of these users alone."""
    return small_model(model_config(**changes), batch=only(jagged_batch(), users), candidate_ids=CANDIDATES[users])


def states_of(small: Small) -> list[Tensor]:
    """``[tokens, D]`` hidden states of each user."""
    extra = 0 if small.candidate_ids is None else NUM_CANDIDATES
    return list(small.hidden().split((2 * small.batch.lengths + extra).tolist()))


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_hidden_states_are_those_of_the_user_alone(changes: dict) -> None:
    together = states_of(of_users(changes, list(range(NUM_USERS))))
    turned = states_of(of_users(changes, list(reversed(range(NUM_USERS)))))
    for user in range(NUM_USERS):
        (alone,) = states_of(of_users(changes, [user]))
        assert_near(together[user], alone)
        assert_near(turned[NUM_USERS - 1 - user], alone)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_batchs_sums_and_squared_norms_are_those_of_its_users_added_up(changes: dict) -> None:
    together = of_users(changes, list(range(NUM_USERS))).forward()
    alone = [of_users(changes, [user]).forward() for user in range(NUM_USERS)]
    for name in ("retrieval", "ranking", "sq_norms", "enhancer_counts"):
        assert_near(getattr(together, name), torch.stack([getattr(sums, name) for sums in alone]).sum(0))
    if together.next_candidates is not None:
        assert torch.equal(together.next_candidates, torch.cat([sums.next_candidates for sums in alone]))


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_evaluations_scores_are_those_of_the_user_alone(changes: dict) -> None:
    def scored(small: Small) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(small.model(small.vectors.items, small.batch, small.vectors.side))

    together = scored(of_users(changes, list(range(NUM_USERS))))
    for user in range(NUM_USERS):
        for ours, alone in zip(together, scored(of_users(changes, [user])), strict=True):
            torch.testing.assert_close(ours[user], alone[0], rtol=1e-6, atol=1e-6)


def test_another_users_prior_history_masks_nothing() -> None:
    batch = jagged_batch()
    others = replace(batch, prior_item_ids=torch.tensor([2, 10, 2, 20, 21]))  # of the fourth user
    config = model_config(objective__enhancer=None)
    ours = small_model(config, batch=batch)
    theirs = small_model(config, batch=others)
    for small in (ours, theirs):
        small.forward().retrieval.backward()
    first, fourth = slice(0, 5), slice(6, 13)
    assert torch.equal(ours.vectors.items.grad[first], theirs.vectors.items.grad[first])
    assert not torch.equal(ours.vectors.items.grad[fourth], theirs.vectors.items.grad[fourth])

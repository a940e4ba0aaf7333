"""What may move a logit or a query: what happened before it, and the item or the moment that it asks about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.small_model import Small, model_config, small_model
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.unigrf import SequenceScores

BACKBONES = [{}, {"model__backbone": "llama"}, {"model__behaviours_carry_items": True}]
IDS = ["hstu", "llama", "behaviours_carry_items"]
LENGTH = 7
CANDIDATES = torch.tensor([[8, 9, 10, 11, 12]])


def one_user(**changes: Tensor) -> JaggedBatch:
    batch = JaggedBatch(
        item_ids=torch.tensor([1, 2, 1, 34, 4, 2, 7]),
        behaviours=torch.tensor([2, 0, 4, 1, 3, 3, 0]),
        timestamps=torch.tensor([0, 3, 9, 50, 51, 7_000, 7_005]),
        offsets=torch.tensor([0, LENGTH]),
        user_ids=torch.tensor([0]),
    )
    return replace(batch, **changes)


def changed_at(event: int, **values: int) -> JaggedBatch:
    """The user with other values at one event."""
    batch, changes = one_user(), {}
    for name, value in values.items():
        changes[name] = getattr(batch, name).clone()
        assert changes[name][event] != value
        changes[name][event] = value
    return replace(batch, **changes)


def logits_and_queries(batch: JaggedBatch, changes: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """``[E, A]`` ranking logits at the items and ``[E, D]`` queries at the behaviours, of a training forward."""
    small = small_model(model_config(**changes), batch=batch, candidate_ids=CANDIDATES)
    states = small.hidden()[: 2 * LENGTH]
    logits = states[0::2] @ small.model.head_weight.T + small.model.head_bias
    return logits.detach(), states[1::2]


def moved(ours: Tensor, theirs: Tensor) -> list[bool]:
    return (ours != theirs).any(1).tolist()


@pytest.mark.parametrize("event", [0, 3, LENGTH - 1])
@pytest.mark.parametrize("changes", BACKBONES, ids=IDS)
def test_a_behaviour_moves_what_comes_after_its_item_and_nothing_before(changes: dict, event: int) -> None:
    logits, queries = logits_and_queries(one_user(), changes)
    other = 1 if one_user().behaviours[event] != 1 else 2
    other_logits, other_queries = logits_and_queries(changed_at(event, behaviours=other), changes)
    assert moved(logits, other_logits) == [later > event for later in range(LENGTH)]
    assert moved(queries, other_queries) == [later >= event for later in range(LENGTH)]


@pytest.mark.parametrize("event", [0, 3, LENGTH - 1])
@pytest.mark.parametrize("changes", BACKBONES, ids=IDS)
def test_an_item_moves_its_own_logit_and_what_comes_after_it(changes: dict, event: int) -> None:
    logits, queries = logits_and_queries(one_user(), changes)
    other_logits, other_queries = logits_and_queries(changed_at(event, item_ids=20), changes)
    expected = [later >= event for later in range(LENGTH)]
    assert moved(logits, other_logits) == moved(queries, other_queries) == expected


@pytest.mark.parametrize("visible", [False, True], ids=["hidden", "visible"])
@pytest.mark.parametrize("changes", BACKBONES, ids=IDS)
def test_a_query_knows_the_next_events_time_only_where_it_is_visible(changes: dict, visible: bool) -> None:
    changes = {**changes, "model__query_time_visible": visible}
    logits, queries = logits_and_queries(one_user(), changes)
    later = changed_at(LENGTH - 1, timestamps=9_000_000)
    other_logits, other_queries = logits_and_queries(later, changes)
    last = [False] * (LENGTH - 1) + [True]
    assert moved(logits, other_logits) == last
    assert moved(queries, other_queries) == [False] * (LENGTH - 2) + [visible, True]


@pytest.mark.parametrize("changes", BACKBONES, ids=IDS)
def test_a_candidate_moves_no_hidden_state_but_its_own(changes: dict) -> None:
    config = model_config(**changes)
    states = small_model(config, batch=one_user(), candidate_ids=CANDIDATES).hidden()
    others = torch.tensor([[8, 9, 21, 11, 12]])
    other_states = small_model(config, batch=one_user(), candidate_ids=others).hidden()
    assert moved(states, other_states) == [row == 2 * LENGTH + 2 for row in range(2 * LENGTH + 5)]
    alone = small_model(model_config(**changes, objective__enhancer=None), batch=one_user()).hidden()
    torch.testing.assert_close(states[: 2 * LENGTH], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("changes", BACKBONES, ids=IDS)
def test_what_a_candidate_is_made_of_gets_no_gradient_from_the_backbone(changes: dict) -> None:
    enhancer = {"candidates": 5, "hard_negatives": 0, "soft_positives": 0, "threshold": 0.5}
    small = small_model(
        model_config(**changes, objective__enhancer=enhancer),
        batch=one_user(),
        candidate_ids=CANDIDATES,
        side=True,
    )
    sums = small.forward()
    (sums.retrieval + sums.ranking).backward()
    # Not even a gradient of zeros, which would cost a backward through tokens that the loss does not read.
    assert small.vectors.candidate_side.grad is None
    assert small.vectors.candidates.grad is None or not small.vectors.candidates.grad.any()


def scored(small: Small) -> SequenceScores:
    return small.model(small.vectors.items, small.batch, small.vectors.side)


@pytest.mark.parametrize("changes", BACKBONES, ids=IDS)
@pytest.mark.parametrize(
    ("held_out", "moves_logits"),
    [
        ({"behaviours": 4}, False),
        ({"item_ids": 20}, True),
        ({"timestamps": 9_000_000}, True),
    ],
    ids=["behaviour", "item", "time"],
)
def test_the_held_out_event_moves_no_query_and_its_behaviour_no_logit(
    changes: dict, held_out: dict, moves_logits: bool
) -> None:
    config = model_config(**changes)
    scores = scored(small_model(config, batch=one_user()))
    others = scored(small_model(config, batch=changed_at(LENGTH - 1, **held_out)))
    assert torch.equal(scores.queries, others.queries)
    assert torch.equal(scores.ranking_logits, others.ranking_logits) != moves_logits


@pytest.mark.parametrize("changes", BACKBONES, ids=IDS)
@pytest.mark.parametrize("before", [{"behaviours": 4}, {"item_ids": 20}], ids=["behaviour", "item"])
def test_the_event_before_the_held_out_one_moves_query_and_logit(changes: dict, before: dict) -> None:
    config = model_config(**changes)
    scores = scored(small_model(config, batch=one_user()))
    others = scored(small_model(config, batch=changed_at(LENGTH - 2, **before)))
    assert not torch.equal(scores.queries, others.queries)
    assert not torch.equal(scores.ranking_logits, others.ranking_logits)

"""Query-positive pairs of a small batch, written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.enhancer.targets import EnhancerTargets
from unigrf_dist.objective.pairs import next_item_pairs, next_item_weights

# Users of 2, 0 and 3 events.
BATCH = JaggedBatch(
    item_ids=torch.tensor([7, 5, 9, 5, 8]),
    behaviours=torch.zeros(5, dtype=torch.int64),
    timestamps=torch.arange(5),
    offsets=torch.tensor([0, 2, 2, 5]),
    user_ids=torch.tensor([40, 41, 42]),
)
ROWS = torch.tensor([1, 3, 11, 13, 15])
VECTORS = torch.tensor([[7.0, 70.0], [5.0, 50.0], [9.0, 90.0], [5.0, 50.0], [8.0, 80.0]])


def test_each_event_but_the_last_of_its_user_retrieves_the_next_item() -> None:
    pairs = next_item_pairs(ROWS, VECTORS, BATCH, torch.ones(1))
    assert pairs.query_rows.tolist() == [1, 3, 11, 13, 15]
    assert pairs.weights.tolist() == [1.0, 0.0, 1.0, 1.0, 0.0]
    assert pairs.weights.dtype == torch.float32
    assert pairs.users.tolist() == [0, 0, 2, 2, 2]
    assert pairs.events.tolist() == [0, 1, 2, 3, 4]
    counted = pairs.weights > 0
    assert pairs.positive_ids[counted].tolist() == [5, 5, 8]
    assert pairs.positive_vectors[counted].tolist() == [[5.0, 50.0], [5.0, 50.0], [8.0, 80.0]]
    # What weighs nothing still names an item and its vector.
    assert torch.equal(pairs.positive_vectors[:, 0], pairs.positive_ids.float())


def test_an_event_that_is_no_target_is_retrieved_by_nobody_and_still_retrieves() -> None:
    """Codes of the two users: 1 2, and 0 2 1; 0 and 2 are targets."""
    batch = replace(BATCH, behaviours=torch.tensor([1, 2, 0, 2, 1]))
    targets = torch.tensor([1.0, 0.0, 1.0])
    pairs = next_item_pairs(ROWS, VECTORS, batch, targets)
    assert pairs.weights.tolist() == next_item_weights(batch, targets).tolist() == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert pairs.positive_ids[pairs.weights > 0].tolist() == [5, 5]


def test_an_item_without_a_row_is_retrieved_by_nobody_and_still_retrieves() -> None:
    batch = replace(BATCH, known=torch.tensor([False, True, False, False, True]))
    pairs = next_item_pairs(ROWS, VECTORS, batch, torch.ones(1))
    assert pairs.weights.tolist() == next_item_weights(batch, torch.ones(1)).tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("num_events", [0, 1])
def test_batches_of_no_or_one_event_have_no_pair_that_counts(num_events: int) -> None:
    ids = torch.full((num_events,), 6)
    offsets = torch.tensor([0, num_events])
    batch = JaggedBatch(ids, ids, ids, offsets, torch.tensor([3]))
    pairs = next_item_pairs(ROWS[:num_events], VECTORS[:num_events], batch, torch.ones(7))
    assert pairs.weights.tolist() == [0.0] * num_events
    assert pairs.positive_ids.shape == (num_events,)


def test_soft_positives_follow_and_absent_ones_weigh_nothing() -> None:
    soft_ids = torch.tensor([[4, 2], [-1, -1], [6, -1]])
    soft_vectors = torch.arange(12.0).view(3, 2, 2)
    none = torch.zeros(3, 0, dtype=torch.int64)
    targets = EnhancerTargets(none, torch.zeros(3, 0, 2), soft_ids, soft_vectors, none)
    plain = next_item_pairs(ROWS, VECTORS, BATCH, torch.ones(1))
    pairs = plain.with_soft_positives(
        targets, query_rows=torch.tensor([3, 0, 15]), events=torch.tensor([1, 1, 4]), weight=0.25
    )
    for name in ("query_rows", "positive_vectors", "positive_ids", "weights", "users", "events"):
        assert torch.equal(getattr(pairs, name)[:5], getattr(plain, name))
    assert pairs.query_rows[5:].tolist() == [3, 3, 0, 0, 15, 15]
    assert pairs.positive_ids[5:].tolist() == [4, 2, -1, -1, 6, -1]
    assert torch.equal(pairs.positive_vectors[5:], torch.arange(12.0).view(6, 2))
    assert pairs.weights[5:].tolist() == [0.25, 0.25, 0.0, 0.0, 0.25, 0.0]
    assert pairs.users[5:].tolist() == [0, 0, 1, 1, 2, 2]
    assert pairs.events[5:].tolist() == [1, 1, 1, 1, 4, 4]

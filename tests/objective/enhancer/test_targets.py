"""The enhancer's rules: which candidates become targets, and which items become candidates."""

from __future__ import annotations

import torch

from tests.train.small_run import NUM_ITEMS, global_batch, join
from unigrf_dist.config.schema import EnhancerConfig
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.enhancer.candidates import NO_ITEM, Candidates, select_candidates
from unigrf_dist.objective.enhancer.targets import select_targets
from unigrf_dist.objective.negatives import Negatives

CONFIG = EnhancerConfig(candidates=4, hard_negatives=2, soft_positives=1, threshold=0.8)


def test_hard_negatives_are_scored_high_by_retrieval_and_low_by_ranking() -> None:
    ids = torch.tensor([[10, 11, 12, 13]])
    scores = torch.tensor([[0.9, 0.1, 0.8, 0.2]])
    probabilities = torch.tensor([[0.1, 0.7, 0.2, 0.1]])
    selected = select_targets(ids, scores, probabilities, CONFIG)
    assert selected.hard_negative_ids.tolist() == [[10, 12]]
    assert selected.hard_negative_indices.tolist() == [[0, 2]]
    assert selected.soft_positive_ids.tolist() == [[NO_ITEM]]


def test_candidates_above_the_threshold_are_soft_positives_and_never_negatives() -> None:
    ids = torch.tensor([[10, 11, 12, 13]])
    selected = select_targets(
        ids, torch.tensor([[9.0, 8.0, 1.0, 0.0]]), torch.tensor([[0.9, 0.95, 0.2, 0.1]]), CONFIG
    )
    assert selected.soft_positive_ids.tolist() == [[11]]
    assert sorted(selected.above_threshold_ids[0].tolist()) == [NO_ITEM, NO_ITEM, 10, 11]
    assert set(selected.hard_negative_ids[0].tolist()) == {12, 13}


def test_missing_candidates_are_never_selected() -> None:
    ids = torch.tensor([[NO_ITEM, 11, NO_ITEM, NO_ITEM], [NO_ITEM] * 4])
    selected = select_targets(ids, torch.full((2, 4), 9.0), torch.full((2, 4), 0.1), CONFIG)
    assert selected.hard_negative_ids.tolist() == [[11, NO_ITEM], [NO_ITEM, NO_ITEM]]
    above = select_targets(ids, torch.zeros(2, 4), torch.ones(2, 4), CONFIG)
    assert above.soft_positive_ids.tolist() == [[11], [NO_ITEM]]


def test_candidates_are_the_best_items_that_the_user_has_not_seen() -> None:
    batch = join(global_batch(1, [5, 0, 9]))
    generator = torch.Generator().manual_seed(0)
    queries, table = torch.randn(3, 6, generator=generator), torch.randn(NUM_ITEMS, 6, generator=generator)
    negatives = Negatives(torch.arange(NUM_ITEMS), distinct=True)
    found = select_candidates(queries, table, negatives, batch, None, num_candidates=7, num_items=NUM_ITEMS)
    for user in range(3):
        seen = set(batch.item_ids[batch.offsets[user] : batch.offsets[user + 1]].tolist())
        order = (queries[user] @ table.T).argsort(descending=True).tolist()
        assert found[user].tolist() == [item for item in order if item not in seen][:7]


def test_items_of_the_prior_history_are_no_candidates() -> None:
    batch = JaggedBatch(
        torch.tensor([3]), torch.tensor([0]), torch.tensor([0]), torch.tensor([0, 1]), torch.tensor([0]),
        prior_item_ids=torch.tensor([5, 6]), prior_offsets=torch.tensor([0, 2]),
    )  # fmt: skip
    scores = torch.arange(8.0)[:, None]
    negatives = Negatives(torch.arange(8), distinct=True)
    found = select_candidates(torch.ones(1, 1), scores, negatives, batch, None, num_candidates=3, num_items=8)
    assert found.tolist() == [[7, 4, 2]]


def test_samples_drawn_twice_are_selected_once_and_current_candidates_compete() -> None:
    batch = JaggedBatch(
        torch.tensor([0]), torch.tensor([0]), torch.tensor([0]), torch.tensor([0, 1]), torch.tensor([0])
    )
    table = torch.arange(10.0)[:, None]
    ids = torch.tensor([4, 7, 4, 2, 7])
    current_ids = torch.tensor([[9, 7, NO_ITEM, 1]])
    current = Candidates(current_ids, table[current_ids.clamp_min(0)])
    found = select_candidates(
        torch.ones(1, 1),
        table[ids],
        Negatives(ids, distinct=False),
        batch,
        current,
        num_candidates=6,
        num_items=10,
    )
    assert found.tolist() == [[9, 7, 4, 2, 1, NO_ITEM]]


def test_fewer_items_than_candidates_leave_places_empty() -> None:
    codes = torch.tensor([0])
    batch = JaggedBatch(codes, codes, codes, torch.tensor([0, 1]), codes)
    scores, negatives = torch.tensor([[5.0], [7.0]]), Negatives(torch.tensor([2, 1]), distinct=True)
    found = select_candidates(torch.ones(1, 1), scores, negatives, batch, None, num_candidates=5, num_items=3)
    assert found.tolist() == [[1, 2, NO_ITEM, NO_ITEM, NO_ITEM]]


def test_scores_and_probabilities_are_compared_in_their_own_deviations() -> None:
    """By raw differences the first would be the hard negative, by its scores' spread alone the third."""
    ids = torch.tensor([[10, 11, 12]])
    scores, probabilities = torch.tensor([[0.7, 0.6, 0.1]]), torch.tensor([[0.3, 0.1, 0.2]])
    few = EnhancerConfig(candidates=3, hard_negatives=1, soft_positives=1, threshold=0.8)
    assert select_targets(ids, scores, probabilities, few).hard_negative_ids.tolist() == [[11]]


def test_a_probability_at_the_threshold_is_not_above_it() -> None:
    ids, half = torch.tensor([[4, 5]]), torch.tensor([[0.5, 0.25]])
    config = EnhancerConfig(candidates=2, hard_negatives=2, soft_positives=1, threshold=0.5)
    selected = select_targets(ids, half, half, config)
    assert selected.above_threshold_ids.tolist() == [[NO_ITEM, NO_ITEM]]
    assert selected.soft_positive_ids.tolist() == [[NO_ITEM]]

"""The enhancer between hidden states and targets, by numbers of which each can be followed."""

from __future__ import annotations

import math

import pytest
import torch

from unigrf_dist.config.schema import EnhancerConfig, RetrievalConfig
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.enhancer.candidates import NO_ITEM, Candidates
from unigrf_dist.objective.enhancer.enhancer import Enhancer
from unigrf_dist.objective.negatives import Negatives

CONFIG = EnhancerConfig(candidates=4, hard_negatives=1, soft_positives=1, threshold=0.75)
# Item vectors of two columns. By product with (1, 0), item 5 is best; by cosine, item 3 is.
TABLE = torch.tensor([[0, 1], [-1, 0], [0, 3], [1, 0], [1, 1], [4, 4.5], [0.5, -2]])


def enhancer(normalize: bool) -> Enhancer:
    return Enhancer(CONFIG, RetrievalConfig(normalize=normalize), num_items=len(TABLE))


def batch_of(*lengths: int) -> JaggedBatch:
    """Users who have seen item 1 only, or nothing."""
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    events = torch.ones(sum(lengths), dtype=torch.int64)
    return JaggedBatch(events, events, events, offsets, torch.arange(len(lengths)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("normalize", "hard"), [(True, 3), (False, 5)])
def test_hard_negatives_are_compared_as_the_loss_compares(normalize: bool, hard: int, dtype: torch.dtype) -> None:
    ids = torch.tensor([[3, 5, 0, 2], [3, 5, 0, 2]])
    vectors = TABLE[ids].requires_grad_()
    # The head's logit is the state's first column minus 1: probabilities of 1/2 and, for item 0 and 2, above 3/4.
    states = torch.tensor([[[1.0, 9], [1, 9], [3, 9], [4, 9]]] * 2)
    found = enhancer(normalize).targets(
        torch.tensor([[1.0, 0.0]] * 2, dtype=dtype),
        states.to(dtype),
        Candidates(ids, vectors),
        batch_of(2, 0),
        head_weight=torch.tensor([1.0, 0.0], dtype=dtype),
        head_bias=torch.tensor(-1.0, dtype=dtype),
    )
    assert found.hard_negative_ids.tolist() == [[hard], [NO_ITEM]]
    assert found.soft_positive_ids.tolist() == [[2], [NO_ITEM]]
    assert found.above_threshold_ids.tolist() == [[NO_ITEM, NO_ITEM, 0, 2], [NO_ITEM] * 4]
    assert found.counts().tolist() == [1, 1]
    # In the dtype of the hidden states, as the loss wants them, and not yet normalised: it does that.
    assert found.hard_negative_vectors[0].tolist() == [TABLE[hard].tolist()]
    assert found.soft_positive_vectors[0].tolist() == [TABLE[2].tolist()]
    assert found.hard_negative_vectors.dtype == found.soft_positive_vectors.dtype == dtype
    (found.hard_negative_vectors[0].sum() + 2 * found.soft_positive_vectors[0].sum()).backward()
    assert vectors.grad[0].tolist() == [[float(item == hard)] * 2 for item in (3, 5)] + [[0, 0], [2, 2]]
    assert not vectors.grad[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("normalize", "best"), [(True, [3, 4, 5, 6]), (False, [5, 3, 4, 6])])
def test_the_next_candidates_are_the_best_as_the_loss_compares(
    normalize: bool, best: list[int], dtype: torch.dtype
) -> None:
    # Item 6 and 3 are current candidates, the others negatives; nobody may get item 1, which was seen.
    ids, current = torch.tensor([0, 1, 2, 4, 5]), torch.tensor([[6, 3], [6, 3]])
    found = enhancer(normalize).next_candidates(
        torch.tensor([[2.0, 0.0]] * 2, dtype=dtype),
        batch_of(1, 0),
        Negatives(ids, distinct=True),
        TABLE[ids],
        Candidates(current, TABLE[current]),
    )
    assert found.tolist() == [best, [NO_ITEM] * 4]


def test_a_batch_without_events_has_no_candidates() -> None:
    ids = torch.tensor([0, 1])
    negatives, queries = Negatives(ids, distinct=True), torch.zeros(2, 2)
    found = enhancer(True).next_candidates(queries, batch_of(0, 0), negatives, TABLE[ids], None)
    assert found.tolist() == [[NO_ITEM] * 4] * 2
    assert found.dtype == torch.int64


def test_a_cosine_with_nothing_is_nothing() -> None:
    compared = enhancer(True)._comparable(torch.tensor([[0.0, 0.0], [3e-7, 4e-7], [3.0, 4.0]]))
    assert compared.flatten().tolist() == pytest.approx([0, 0, 0.3, 0.4, 0.6, 0.8])
    assert not math.isnan(compared.sum())

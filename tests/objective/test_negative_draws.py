"""Negatives of small catalogues: numbers of samples, first events, and expected counts by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from unigrf_dist.config.schema import RetrievalConfig
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.negatives import Negatives, NegativeSource

CPU = torch.device("cpu")
CODES = torch.zeros(6, dtype=torch.int64)
BATCH = JaggedBatch(torch.tensor([4, 1, 4, 2, 1, 4]), CODES, CODES, torch.tensor([0, 4, 6]), torch.tensor([0, 1]))


def draw(popularity: list[int], step: int = 0, seed: int = 3, **config: object) -> Negatives:
    source = NegativeSource(RetrievalConfig(**config), popularity=torch.tensor(popularity), seed=seed, device=CPU)
    return source.draw(step, BATCH)


@pytest.mark.parametrize("distribution", ["uniform", "log_popularity"])
def test_samples_are_as_many_as_asked_for_and_of_the_whole_catalogue(distribution: str) -> None:
    negatives = draw([5, 4, 3, 2, 1], negatives="sampled", num_negatives=997, distribution=distribution)
    assert negatives.ids.shape == (997,)
    assert negatives.ids.unique().tolist() == [0, 1, 2, 3, 4]
    assert not negatives.distinct
    assert negatives.in_batch is None
    assert negatives.looked_up is negatives.ids


def test_seeds_and_steps_draw_other_samples() -> None:
    drawn = [
        draw([1] * 1000, step, seed, negatives="sampled", num_negatives=20).ids.tolist()
        for seed in range(4)
        for step in range(4)
    ]
    assert len({tuple(ids) for ids in drawn}) == 16


def test_the_items_of_the_batch_point_at_their_first_events() -> None:
    negatives = draw([1] * 5, negatives="in_batch")
    assert negatives.ids.tolist() == [1, 2, 4]
    assert negatives.in_batch is not None
    assert negatives.in_batch.tolist() == [1, 3, 0]
    assert negatives.looked_up.tolist() == []
    assert negatives.distinct


def log_q(negatives: Negatives) -> Callable[[torch.Tensor], torch.Tensor]:
    assert negatives.item_log_q is not None
    return negatives.item_log_q


def test_the_log_q_of_batch_items_by_hand() -> None:
    # Shares 1/8, 0, 7/8; six events.
    values = log_q(draw([1, 0, 7], negatives="in_batch"))(torch.tensor([2, 0, 1]))
    assert values.dtype == torch.float32
    expected = [math.log(1 - (1 / 8) ** 6), math.log(1 - (7 / 8) ** 6)]
    assert values[:2].tolist() == pytest.approx(expected, rel=1e-5)
    # An item without training events is unlikely, not impossible.
    assert -40 < float(values[2]) < -20


def test_the_log_q_of_the_only_item_and_of_a_catalogue_without_events_is_finite() -> None:
    assert log_q(draw([9], negatives="in_batch"))(torch.tensor([0])).tolist() == pytest.approx([0.0], abs=1e-6)
    assert log_q(draw([0, 0], negatives="in_batch"))(torch.tensor([0, 1])).isfinite().all()


def test_the_log_q_of_mixed_negatives_adds_the_samples() -> None:
    popularity = [1, 0, 7]  # popularity ranks: item 2, 0, 1
    mixed = draw(popularity, negatives="mixed", num_negatives=10, distribution="log_popularity")
    # Rank r comes with log((r + 2) / (r + 1)) / log(4).
    samples = [10 * math.log(3 / 2) / math.log(4), 10 * math.log(2) / math.log(4)]
    expected = [1 - (7 / 8) ** 6 + samples[0], 1 - (1 / 8) ** 6 + samples[1]]
    assert log_q(mixed)(torch.tensor([0, 2])).exp().tolist() == pytest.approx(expected, rel=1e-5)
    assert not mixed.distinct
    uniform = draw(popularity, negatives="mixed", num_negatives=12)
    assert log_q(uniform)(torch.tensor([0])).exp().tolist() == pytest.approx([1 - (7 / 8) ** 6 + 4], rel=1e-5)


def test_of_equally_popular_items_the_first_ranks_first() -> None:
    values = log_q(draw([2, 5, 2, 5], negatives="sampled", num_negatives=1, distribution="log_popularity"))
    ranks = values(torch.tensor([1, 3, 0, 2])).exp() * math.log(5)
    assert ranks.tolist() == pytest.approx([math.log((r + 2) / (r + 1)) for r in range(4)], rel=1e-5)


def test_rare_items_of_a_large_catalogue_are_told_apart() -> None:
    num_items = 1_000_000
    values = log_q(draw([1] * num_items, negatives="sampled", num_negatives=8, distribution="log_popularity"))
    ranks = [700_001, 850_000, 999_999]
    # Quotients this close to 1 are too coarse in float32.
    expected = [math.log(8 * math.log1p(1 / (rank + 1)) / math.log(num_items + 1)) for rank in ranks]
    assert values(torch.tensor(ranks)).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["sampled", "in_batch", "mixed"])
def test_without_the_correction_there_is_no_log_q(kind: str) -> None:
    negatives = draw([3, 2, 1], negatives=kind, distribution="log_popularity", logq_correction=False)
    assert negatives.item_log_q is None


def test_the_catalogue_is_distinct() -> None:
    assert draw([3, 2, 1], negatives="full").distinct


LIVE = torch.tensor([1, 3, 4])


@pytest.mark.parametrize("kind", ["full", "sampled", "in_batch", "mixed"])
def test_only_live_items_are_negatives(kind: str) -> None:
    config = RetrievalConfig(negatives=kind, num_negatives=500, distribution="log_popularity")
    source = NegativeSource(config, popularity=torch.tensor([9, 1, 5, 1, 2, 8]), seed=3, device=CPU)
    batch = replace(BATCH, known=torch.isin(BATCH.item_ids, LIVE))
    drawn = source.draw(0, batch, LIVE)
    assert drawn.ids.unique().tolist() == ([1, 4] if kind == "in_batch" else [1, 3, 4])
    if drawn.in_batch is not None:
        assert drawn.in_batch.tolist() == [1, 0]
        assert torch.equal(drawn.ids[:2], BATCH.item_ids[drawn.in_batch])
    none = source.draw(0, replace(batch, known=torch.zeros(6, dtype=torch.bool)), LIVE[:0])
    assert none.ids.numel() == none.looked_up.numel() == 0


def test_samples_of_live_items_are_as_frequent_as_their_log_q_says() -> None:
    """Popularity ranks among the live ones alone: 4, 1, 3."""
    config = RetrievalConfig(negatives="sampled", num_negatives=20_000, distribution="log_popularity")
    source = NegativeSource(config, popularity=torch.tensor([9, 1, 5, 1, 2, 8]), seed=3, device=CPU)
    for live, order in ((LIVE, [4, 1, 3]), (torch.tensor([0, 1, 5]), [0, 5, 1])):
        drawn = source.draw(0, BATCH, live)
        expected = [20_000 * math.log((rank + 2) / (rank + 1)) / math.log(4) for rank in range(3)]
        assert log_q(drawn)(torch.tensor(order)).exp().tolist() == pytest.approx(expected, rel=1e-5)
        counts = drawn.ids.bincount(minlength=6)[order]
        assert counts.tolist() == pytest.approx(expected, rel=0.05)

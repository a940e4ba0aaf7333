"""Negatives: which items, how often, and the same ones on every rank."""

from __future__ import annotations

import math

import torch

from tests.train.small_run import global_batch, join
from unigrf_dist.config.schema import RetrievalConfig
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.negatives import NegativeSource

CPU = torch.device("cpu")


def source(popularity: list[int], **config: object) -> NegativeSource:
    return NegativeSource(RetrievalConfig(**config), popularity=torch.tensor(popularity), seed=3, device=CPU)


def test_full_means_the_catalogue() -> None:
    negatives = source([4, 1, 2], negatives="full").draw(0, JaggedBatch.empty())
    assert negatives.ids.tolist() == [0, 1, 2]
    assert negatives.item_log_q is None


def test_samples_depend_on_seed_and_step_alone() -> None:
    first, second = (source([1] * 50, negatives="sampled", num_negatives=20) for _ in range(2))
    batch = join(global_batch(0, [5]))
    assert torch.equal(first.draw(7, JaggedBatch.empty()).ids, second.draw(7, batch).ids)
    assert not torch.equal(first.draw(7, batch).ids, first.draw(8, batch).ids)


def test_zipfian_samples_come_as_often_as_their_log_q_says() -> None:
    popularity = [10, 500, 30, 40]  # popularity ranks: item 1, 3, 2, 0
    draws = 40_000
    negatives = source(popularity, negatives="sampled", num_negatives=draws, distribution="log_popularity").draw(
        0, JaggedBatch.empty()
    )
    assert negatives.item_log_q is not None
    expected = negatives.item_log_q(torch.arange(4)).exp()
    counts = torch.bincount(negatives.ids, minlength=4)
    # P(rank r) = log((r + 2) / (r + 1)) / log(5)
    by_hand = torch.tensor([math.log(5 / 4), math.log(2), math.log(4 / 3), math.log(3 / 2)]) / math.log(5)
    assert torch.allclose(expected, draws * by_hand, rtol=1e-5)
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


def test_uniform_samples_need_no_correction() -> None:
    assert source([1, 2], negatives="sampled").draw(0, JaggedBatch.empty()).item_log_q is None


def test_in_batch_items_are_distinct_and_point_at_their_events() -> None:
    batch = join(global_batch(3, [9, 0, 12]))
    negatives = source([1] * 83, negatives="in_batch").draw(0, batch)
    assert negatives.in_batch is not None
    assert torch.equal(batch.item_ids[negatives.in_batch], negatives.ids)
    assert negatives.ids.unique().numel() == negatives.ids.numel() == batch.item_ids.unique().numel()
    assert negatives.item_log_q is not None


def test_an_empty_batch_has_no_in_batch_items() -> None:
    negatives = source([1] * 83, negatives="in_batch").draw(0, JaggedBatch.empty())
    assert negatives.ids.numel() == 0


def test_the_log_q_of_batch_items_is_how_often_batches_hold_them() -> None:
    popularity = torch.tensor([1, 5, 30, 64])
    events, batches = 6, 4000
    generator = torch.Generator().manual_seed(2)
    held = torch.zeros(4)
    for _ in range(batches):
        held[torch.multinomial(popularity.float(), events, replacement=True, generator=generator).unique()] += 1
    batch = JaggedBatch(
        *[torch.zeros(events, dtype=torch.int64)] * 3, torch.tensor([0, events]), torch.tensor([0])
    )
    negatives = source(popularity.tolist(), negatives="in_batch").draw(0, batch)
    assert negatives.item_log_q is not None
    assert torch.allclose(negatives.item_log_q(torch.arange(4)).exp(), held / batches, atol=0.03)


def test_mixed_negatives_are_the_batch_items_and_then_samples() -> None:
    batch = join(global_batch(3, [9, 0, 12]))
    mixed, sampled, batched = (
        source([1] * 83, negatives=kind, num_negatives=20).draw(4, batch)
        for kind in ("mixed", "sampled", "in_batch")
    )
    assert torch.equal(mixed.looked_up, sampled.ids)
    assert torch.equal(mixed.ids, torch.cat([batched.ids, sampled.ids]))
    assert mixed.item_log_q is not None
    assert batched.item_log_q is not None
    one = torch.tensor([5])
    assert torch.allclose(mixed.item_log_q(one).exp(), batched.item_log_q(one).exp() + 20 / 83, rtol=1e-5)

"""The store of candidates: rounds, and who gets what back."""

from __future__ import annotations

import torch

from unigrf_dist.config.schema import EnhancerConfig
from unigrf_dist.objective.enhancer.candidates import NO_ITEM
from unigrf_dist.objective.enhancer.store import CandidateStore


def store(users: list[int], **config: int) -> CandidateStore:
    given = {"candidates": 2, "hard_negatives": 1, "soft_positives": 1, **config}
    return CandidateStore(EnhancerConfig.model_validate(given), torch.tensor(users, dtype=torch.int64))


def test_what_is_written_for_a_user_is_read_for_that_user() -> None:
    kept = store([3, 4, 9])
    assert kept.read(torch.tensor([4, 9])) is None
    kept.write(torch.tensor([9, 3]), torch.tensor([[1, 2], [5, NO_ITEM]]))
    assert kept.read(torch.tensor([3, 4, 9])).tolist() == [[5, NO_ITEM], [NO_ITEM] * 2, [1, 2]]  # type: ignore[union-attr]


def test_a_round_ends_after_the_warm_up_and_then_every_so_many_epochs() -> None:
    kept = store([0], warmup_epochs=3, round_epochs=2)
    assert [epoch for epoch in range(9) if kept.renews(epoch)] == [2, 4, 6, 8]


def test_users_may_come_in_any_order() -> None:
    kept = store([9, 3, 4])
    kept.write(torch.tensor([3, 9]), torch.tensor([[5, 6], [1, 2]]))
    assert kept.values().tolist() == [[1, 2], [5, 6], [NO_ITEM] * 2]
    assert kept.read(torch.tensor([4, 3])).tolist() == [[NO_ITEM] * 2, [5, 6]]  # type: ignore[union-attr]


def test_a_rank_without_users_has_no_candidates() -> None:
    assert store([]).read(torch.zeros(0, dtype=torch.int64)) is None

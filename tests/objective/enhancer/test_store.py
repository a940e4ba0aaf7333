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


def test_only_the_latest_chunk_of_a_user_has_candidates_and_leaves_some() -> None:
    kept = store([3, 9])
    users, latest = torch.tensor([9, 4, 9, 3]), torch.tensor([False, False, True, True])
    assert kept.read(users, latest) is None
    # User 4 and its candidates are on another rank.
    kept.write(users, torch.tensor([[1, 1], [2, 2], [3, 4], [5, 6]]), latest)
    assert kept.values().tolist() == [[5, 6], [3, 4]]
    assert kept.read(users, latest).tolist() == [[NO_ITEM] * 2, [NO_ITEM] * 2, [3, 4], [5, 6]]  # type: ignore[union-attr]
    assert kept.read(users[:2], latest[:2]) is None


def test_writes_follow_each_other_without_a_read() -> None:
    kept = store([0, 1])
    kept.write(torch.tensor([0]), torch.tensor([[1, 2]]))
    kept.write(torch.tensor([1]), torch.tensor([[3, 4]]))
    kept.write(torch.tensor([0]), torch.tensor([[5, 6]]))
    assert kept.values().tolist() == [[5, 6], [3, 4]]
    assert kept.user_ids.tolist() == [0, 1]


def test_what_is_kept_is_small_and_what_is_read_are_item_ids() -> None:
    kept = store([2])
    kept.write(torch.tensor([2]), torch.tensor([[1, 2]]))
    assert kept.read(torch.tensor([2])).dtype == torch.int64  # type: ignore[union-attr]
    assert kept.values().dtype == torch.int32


def test_filling_gives_every_user_items_of_the_catalogue() -> None:
    kept = store(list(range(500)))
    kept.fill(3)
    assert kept.values().unique().tolist() == [0, 1, 2]
    assert kept.read(torch.tensor([0, 499])) is not None

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


def test_other_ranks_take_over_their_users() -> None:
    first, second = store([0, 1, 2]), store([3, 4])
    first.write(torch.tensor([0, 1, 2]), torch.tensor([[1, 2], [3, 4], [5, 6]]))
    second.write(torch.tensor([3, 4]), torch.tensor([[7, 8], [9, 10]]))
    taken = store([1, 3, 7])
    for part in (first.state(), second.state()):
        taken.load(part)
    assert taken.read(torch.tensor([1, 3, 7])).tolist() == [[3, 4], [7, 8], [NO_ITEM] * 2]  # type: ignore[union-attr]


def test_a_rank_without_users_has_no_candidates() -> None:
    assert store([]).read(torch.zeros(0, dtype=torch.int64)) is None


def test_writes_follow_each_other_without_a_read() -> None:
    kept = store([0, 1])
    kept.write(torch.tensor([0]), torch.tensor([[1, 2]]))
    kept.write(torch.tensor([1]), torch.tensor([[3, 4]]))
    kept.write(torch.tensor([0]), torch.tensor([[5, 6]]))
    assert kept.state()["items"].tolist() == [[5, 6], [3, 4]]
    assert kept.state()["users"].tolist() == [0, 1]


def test_what_is_kept_is_small_and_what_is_read_are_item_ids() -> None:
    kept = store([2])
    kept.write(torch.tensor([2]), torch.tensor([[1, 2]]))
    assert kept.read(torch.tensor([2])).dtype == torch.int64  # type: ignore[union-attr]
    assert kept.state()["items"].dtype == torch.int32


def test_a_run_with_more_or_fewer_candidates_takes_over_what_it_has_room_for() -> None:
    first = store([0, 1, 2])
    first.write(torch.tensor([0, 1, 2]), torch.tensor([[1, 2], [3, 4], [5, 6]]))
    for number, expected in ((3, [[1, 2, NO_ITEM], [3, 4, NO_ITEM], [5, 6, NO_ITEM]]), (1, [[1], [3], [5]])):
        taken = store([0, 1, 2], candidates=number)
        taken.load(first.state())
        assert taken.state()["items"].tolist() == expected


def test_nothing_is_taken_over_where_either_side_has_no_users() -> None:
    kept = store([4])
    kept.write(torch.tensor([4]), torch.tensor([[1, 2]]))
    empty = store([])
    empty.load(kept.state())
    kept.load(empty.state())
    assert kept.state()["items"].tolist() == [[1, 2]]
    assert empty.state()["items"].shape == (0, 2)


def test_filling_gives_every_user_items_of_the_catalogue() -> None:
    kept = store(list(range(500)))
    kept.fill(3)
    assert kept.state()["items"].unique().tolist() == [0, 1, 2]
    assert kept.read(torch.tensor([0, 499])) is not None


def test_users_beyond_this_ranks_last_are_left_to_others() -> None:
    everyone = store([0, 4, 8, 9])
    everyone.write(torch.tensor([0, 4, 8, 9]), torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]]))
    taken = store([4, 5])
    taken.load(everyone.state())
    assert taken.state()["items"].tolist() == [[3, 4], [NO_ITEM, NO_ITEM]]

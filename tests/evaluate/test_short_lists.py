"""Lists of the top k where there are fewer than k items, or several of one score."""

from __future__ import annotations

import torch

from unigrf_dist.evaluate.top_k import NOTHING, RunningTopK, merge_top_k

INF = float("inf")


def scores(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_a_list_without_items_holds_nothing() -> None:
    best = RunningTopK(2, 3, torch.device("cpu"))
    assert best.ids.tolist() == [[NOTHING] * 3] * 2
    assert best.scores.tolist() == [[-INF] * 3] * 2


def test_what_no_item_fills_stays_nothing() -> None:
    best = RunningTopK(1, 4, torch.device("cpu"))
    best.add(5, scores([2.0]))
    best.add(6, scores([7.0, -INF]))
    assert best.ids.tolist() == [[6, 5, NOTHING, NOTHING]]
    assert best.scores.tolist() == [[7.0, 2.0, -INF, -INF]]


def test_of_equal_scores_the_lowest_ids_stay_and_stand_first() -> None:
    best = RunningTopK(2, 3, torch.device("cpu"))
    best.add(0, scores([1.0, 2.0], [0.0, 0.0]))
    best.add(2, scores([2.0, 2.0, 2.0], [0.0, 0.0, 1.0]))
    assert best.ids.tolist() == [[1, 2, 3], [4, 0, 1]]


def test_merged_lists_are_filled_up_with_nothing() -> None:
    lists = scores([3.0, 1.0, -INF], [-INF, -INF, -INF]), scores([3.0, -INF, -INF], [4.0, -INF, -INF])
    ids = torch.tensor([[[7, 9, -1], [-1, -1, -1]], [[2, -1, -1], [8, -1, -1]]])
    for order in ([0, 1], [1, 0]):
        merged, merged_ids = merge_top_k(torch.stack([lists[i] for i in order]), ids[order])
        assert merged_ids.tolist() == [[2, 7, 9], [8, NOTHING, NOTHING]]
        assert merged.tolist() == [[3.0, 3.0, 1.0], [4.0, -INF, -INF]]


def test_merging_lists_of_nobody_or_of_no_length_is_legal() -> None:
    for shape in ((3, 0, 4), (3, 2, 0)):
        merged, ids = merge_top_k(torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64))
        assert merged.shape == ids.shape == shape[1:]

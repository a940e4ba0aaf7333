"""The running top k against Python's sort: ties, narrow last chunks, lists merged in any order."""

from __future__ import annotations

import pytest
import torch

from unigrf_dist.evaluate.top_k import RunningTopK, merge_top_k


def tied_scores(num_queries: int, num_items: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 5, (num_queries, num_items), generator=generator).double()
    scores[torch.rand(scores.shape, generator=generator) < 0.1] = -torch.inf
    return scores


def best_ids(row: list[float], k: int) -> list[int]:
    """By score, then by lowest id; hidden items are no candidates."""
    valid = [i for i, score in enumerate(row) if score > float("-inf")]
    return sorted(valid, key=lambda i: (-row[i], i))[:k]


def running(scores: torch.Tensor, k: int, chunk: int) -> RunningTopK:
    best = RunningTopK(scores.shape[0], k, scores.device)
    for first in range(0, scores.shape[1], chunk):
        best.add(first, scores[:, first : first + chunk])
    return best


@pytest.mark.parametrize("k", [1, 3, 10, 23])
@pytest.mark.parametrize("chunk", [1, 4, 22, 23, 100])
def test_chunks_give_what_a_sort_of_everything_gives(k: int, chunk: int) -> None:
    # 23 items: with chunks of 4 the last holds 3, with 22 only 1, fewer than k.
    scores = tied_scores(7, 23, seed=k)
    best = running(scores, k, chunk)
    for row, ids, values in zip(scores.tolist(), best.ids, best.scores, strict=True):
        expected = best_ids(row, k)
        assert ids[: len(expected)].tolist() == expected
        assert values[: len(expected)].tolist() == [row[i] for i in expected]
        assert (values[len(expected) :] == -torch.inf).all()


def test_fewer_items_than_k_leave_the_rest_of_the_list_without_score() -> None:
    best = running(torch.tensor([[2.0, 5.0, -torch.inf]], dtype=torch.float64), k=4, chunk=2)
    assert best.ids[0, :2].tolist() == [1, 0]
    assert best.scores[0].tolist() == [5.0, 2.0, -torch.inf, -torch.inf]


def test_merged_lists_do_not_depend_on_their_order() -> None:
    scores = tied_scores(5, 30, seed=1)
    parts = []
    for first, last in ((0, 11), (11, 12), (12, 30)):
        part = RunningTopK(5, 6, scores.device)
        part.add(first, scores[:, first:last])
        parts.append(part)
    for order in ([0, 1, 2], [2, 0, 1]):
        merged, ids = merge_top_k(
            torch.stack([parts[i].scores for i in order]), torch.stack([parts[i].ids for i in order])
        )
        assert ids.tolist() == [best_ids(row, 6) for row in scores.tolist()]
        assert torch.equal(merged, scores.gather(1, ids))


def test_no_queries_and_empty_lists_are_legal() -> None:
    assert running(torch.zeros(0, 9, dtype=torch.float64), k=3, chunk=4).ids.shape == (0, 3)
    assert running(torch.zeros(2, 9, dtype=torch.float64), k=0, chunk=4).ids.shape == (2, 0)


def test_ids_beyond_the_precision_of_floats_are_kept() -> None:
    best = RunningTopK(1, 2, torch.device("cpu"))
    best.add(2**60 + 1, torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.float64))
    assert best.ids.tolist() == [[2**60 + 2, 2**60 + 3]]

"""Gradient norms at shared parameters, on losses whose gradients are known."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.spawn import run_ranks
from unigrf_dist.objective.exact_norms import ExactNorms

COUNTS = torch.tensor([2.0, 10.0])
# By rank: gradients of retrieval's sum, then of ranking's; the second parameter has two elements.
GRADIENTS = [([1.0, 2.0, -2.0], [0.0, 3.0, 0.0]), ([2.0, 2.0, -2.0], [4.0, -3.0, 0.0])]


def measured() -> list[Tensor | None]:
    """Of the steps 0 to 4: measured every second one; then with no interval; then what the parameters keep."""
    retrieval, ranking = GRADIENTS[dist.get_rank()]
    parameters = [nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.ones(2))]
    calls = []

    def forward() -> tuple[Tensor, Tensor, str]:
        calls.append(1)
        flat = torch.cat([parameters[0].flatten(), parameters[1]])
        # Ranking leaves the first parameter out where its gradient is 0; both share a graph.
        used = flat[1:] @ torch.tensor(ranking[1:]) + (flat[0] * ranking[0] if ranking[0] else 0.0)
        return flat @ torch.tensor(retrieval), used, "more"

    found = [ExactNorms(parameters, 2).measure(step, forward, COUNTS) for step in range(5)]
    assert len(calls) == 3
    assert all(parameter.grad is None for parameter in parameters)
    assert ExactNorms(parameters, None).measure(0, forward, COUNTS) is None
    assert len(calls) == 3
    return found


def test_norms_are_of_the_gradients_summed_over_ranks_divided_by_global_counts() -> None:
    for of_rank in run_ranks(2, measured):
        assert [norms is None for norms in of_rank] == [False, True, False, True, False]
        for norms in of_rank[::2]:
            # Retrieval: |(3, 4, -4)| / 2; ranking: |(4, 0, 0)| / 10.
            assert norms.tolist() == pytest.approx([41**0.5 / 2, 0.4])

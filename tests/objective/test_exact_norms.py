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
    retrieval, ranking = (torch.tensor(each, dtype=torch.bfloat16) for each in GRADIENTS[dist.get_rank()])
    # In low precision, of which the norms must show nothing; at 0 an exponential's slope is 1.
    parameters = [nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16)) for shape in ((1, 1), (2,))]
    calls = []

    def forward() -> tuple[Tensor, Tensor, str]:
        calls.append(1)
        first, second = parameters[0].exp()[0], parameters[1].exp()
        # Both sums share a graph, and a rank's ranking may leave a parameter out.
        of_second = second @ ranking[1:]
        of_both = of_second + first @ ranking[:1] if ranking[0] else of_second
        return first @ retrieval[:1] + second @ retrieval[1:], of_both, "more"

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
            assert norms.tolist() == pytest.approx([41**0.5 / 2, 0.4], rel=1e-6)

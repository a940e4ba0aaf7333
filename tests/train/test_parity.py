"""N ranks equal one rank: the same global batches give the same weights, whatever the ZeRO stage.

The ranks hold unequal numbers of events, and in one step the last rank holds none. Adam hides a wrong factor
on the gradients, so each run also returns the gradient norms and clips them.
"""

from __future__ import annotations

import pytest
import torch

from tests.ranks import run_ranks
from tests.train.small_run import LABELS, global_batch, join, small_config, small_step, whole_weights

STEPS = 5
LENGTHS = [9, 1, 13, 0, 4, 2]


def train(stage: int, changes: dict, shares: list[list[list[int]]]) -> dict[str, torch.Tensor]:
    """Train ``STEPS`` steps; in step ``s`` rank ``r`` takes the users ``shares[s][r]``. All weights, whole."""
    import torch.distributed as dist

    step = small_step(small_config(stage, **changes))
    trace = []
    for number in range(STEPS):
        users = global_batch(number, LENGTHS)
        outcome = step(join([users[u] for u in shares[number][dist.get_rank()]]), number)
        trace.append(torch.cat([outcome.loss[None], outcome.losses, outcome.grad_norms]))
    return {**whole_weights(step), "trace": torch.stack(trace)}


ONE = [[[0, 1, 2, 3, 4, 5]]] * STEPS
TWO = [[[0], [1, 2, 3, 4, 5]]] * (STEPS - 1) + [[[0, 1, 2, 3, 4, 5], []]]
THREE = [[[0, 3], [2], [1, 4, 5]]] * STEPS


@pytest.fixture(scope="module")
def one_rank() -> dict[str, torch.Tensor]:
    (weights,) = run_ranks(1, train, 0, {}, ONE)
    return weights


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() <= tolerance, name


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_ranks_equal_one_under_every_zero_stage(stage: int, one_rank: dict[str, torch.Tensor]) -> None:
    for weights in run_ranks(2, train, stage, {}, TWO):
        assert_close(weights, one_rank, 1e-5)


@pytest.mark.parametrize("stage", [1, 3])
def test_zero_changes_nothing_on_one_rank(stage: int, one_rank: dict[str, torch.Tensor]) -> None:
    (weights,) = run_ranks(1, train, stage, {}, ONE)
    assert_close(weights, one_rank, 1e-5)


def test_three_ranks_equal_one_though_the_table_does_not_divide(one_rank: dict[str, torch.Tensor]) -> None:
    for weights in run_ranks(3, train, 2, {}, THREE):
        assert_close(weights, one_rank, 1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"tables__optimizer": "rowwise_adagrad"},
        {"tables__sharding": "table_wise"},
        {"tables__sharding": "column_wise", "model__width": 16},
        {"objective__retrieval__negatives": "sampled", "objective__retrieval__num_negatives": 20},
    ],
    ids=["rowwise_adagrad", "table_wise", "column_wise", "sampled"],
)
def test_two_ranks_equal_one_for_other_tables_and_negatives(changes: dict) -> None:
    (alone,) = run_ranks(1, train, 2, changes, ONE)
    for weights in run_ranks(2, train, 2, changes, TWO):
        assert_close(weights, alone, 1e-5)


def test_the_weights_did_move(one_rank: dict[str, torch.Tensor]) -> None:
    from unigrf_dist.model.unigrf import UniGRF
    from unigrf_dist.phases import Phases

    config = small_config()
    torch.manual_seed(config.train.seed)
    start = dict(UniGRF(config, LABELS, Phases()).named_parameters())
    for name, value in start.items():
        assert (one_rank[name] - value).abs().max() > 1e-3, name

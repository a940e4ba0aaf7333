"""N ranks equal one rank: the same global batches give the same weights, whatever the ZeRO stage.

The ranks hold unequal numbers of events, and in one step the last rank holds none. Adam hides a wrong factor
on the gradients, so each run also returns the gradient norms and clips them.
"""

from __future__ import annotations

import pytest
import torch

from tests.spawn import run_ranks
from tests.train.small_run import LABELS, NUM_ITEMS, global_batch, join, small_config, small_step, whole_weights

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
        trace.append(torch.cat([outcome.loss[None], outcome.losses, outcome.weights, outcome.grad_norms]))
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


BALANCED = {"warmup_steps": 1, "smoothing": 0.5, "window_steps": 2}
ENHANCED = {"candidates": 5, "hard_negatives": 2, "soft_positives": 2, "threshold": 0.5, "warmup_epochs": 1}
# Candidates stay with the rank that reads their user.
STAYING = [[[0], [1, 2, 3, 4, 5]]] * STEPS


@pytest.mark.parametrize("strategy", ["gradient", "descent_rate", "uncertainty"])
def test_weights_are_bit_identical_on_all_ranks_and_those_of_one_rank(strategy: str) -> None:
    changes = {"objective__weighter": {"strategy": strategy, **BALANCED}}
    (alone,) = run_ranks(1, train, 2, changes, ONE)
    both = run_ranks(2, train, 2, changes, TWO)
    assert torch.equal(both[0]["trace"], both[1]["trace"])
    assert alone["trace"][-1, 3:5].unique().numel() == 2, "the weights did not move"
    for weights in both:
        assert_close(weights, alone, 1e-5)


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("backbone", ["hstu", "llama"])
@pytest.mark.parametrize("negatives", ["full", "sampled"])
def test_the_enhancer_teaches_the_same_on_two_ranks_as_on_one(stage: int, backbone: str, negatives: str) -> None:
    changes = {
        "objective__enhancer": ENHANCED,
        "model__backbone": backbone,
        "objective__retrieval__negatives": negatives,
        "objective__retrieval__num_negatives": 20,
    }
    (alone,) = run_ranks(1, train, stage, changes, ONE)
    for weights in run_ranks(2, train, stage, changes, STAYING):
        assert_close(weights, alone, 1e-5)


@pytest.mark.parametrize("stage", [0, 3])
def test_two_ranks_equal_one_with_a_llama_backbone(stage: int) -> None:
    changes = {"model__backbone": "llama", "model__key_heads": 1}
    (alone,) = run_ranks(1, train, 0, changes, ONE)
    for weights in run_ranks(2, train, stage, changes, TWO):
        assert_close(weights, alone, 1e-5)


def exact_norms(shares: list[list[list[int]]]) -> list[torch.Tensor | None]:
    import torch.distributed as dist

    step = small_step(small_config(2, objective__weighter__exact_every_steps=2))
    users = global_batch(0, LENGTHS)
    batch = join([users[u] for u in shares[0][dist.get_rank()]])
    return [step(batch, number).exact_norms for number in range(3)]


def test_exact_norms_are_measured_when_due_and_are_those_of_one_rank() -> None:
    (alone,) = run_ranks(1, exact_norms, ONE)
    assert [norms is None for norms in alone] == [False, True, False]
    for both in run_ranks(2, exact_norms, TWO):
        assert torch.allclose(both[0], alone[0], rtol=1e-4)
        assert (both[0] > 0).all()


def test_the_weights_did_move(one_rank: dict[str, torch.Tensor]) -> None:
    from unigrf_dist.model.unigrf import UniGRF
    from unigrf_dist.phases import Phases

    config = small_config()
    torch.manual_seed(config.train.seed)
    start = dict(UniGRF(config, LABELS, num_items=NUM_ITEMS, phases=Phases()).named_parameters())
    for name, value in start.items():
        assert (one_rank[name] - value).abs().max() > 1e-3, name

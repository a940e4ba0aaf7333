"""One step on two ranks against the same users on one: sums are global, whoever holds the users."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.spawn import run_ranks
from tests.train.small_run import NUM_USERS, global_batch, join, small_config, small_step, whole_weights
from unigrf_dist.train.signals import Signals
from unigrf_dist.train.step import _Reduction

LENGTHS = [5, 1, 0, 7, 2, 4]
ONE, TWO = [[0, 1, 2, 3, 4, 5]], [[3, 0, 2], [1, 5, 4]]
STEPS = 3
ENHANCER = {"candidates": 5, "hard_negatives": 2, "soft_positives": 1, "threshold": 0.5, "warmup_epochs": 2}
CHANGES = {
    "objective__enhancer": ENHANCER,
    "objective__weighter": {"retrieval": 3.0, "ranking": 1.0, "exact_every_steps": 1},
    "tables__optimizer": "sgd",
    "tables__init_std": 0.5,
    "deepspeed__optimizer": {"type": "AdamW", "params": {"lr": 0.1, "eps": 1.0}},
    "deepspeed__gradient_clipping": 0.0,
}
FIELDS = ("loss", "losses", "weights", "grad_norms", "exact_norms", "enhancer_counts", "num_events", "signals")


def stepped(shares: list[list[int]]) -> tuple[list[dict[str, Tensor]], list[Tensor], dict[str, Tensor]]:
    """What the steps of epochs 0, 1 and 2 said, the candidates after each, and the weights in the end."""
    mine = shares[dist.get_rank()]
    step = small_step(small_config(**CHANGES), torch.tensor(sorted(mine)))
    said, kept, observed = [], [], []
    step.weighter.observe = lambda *given: observed.append(given)
    for number in range(STEPS):
        users = global_batch(number, LENGTHS)
        outcome = step(join([users[user] for user in mine]), number, epoch=number, signals=Signals(stop=0 in mine))
        said.append({name: getattr(outcome, name).clone() for name in FIELDS})
        # Of the step itself, and global: that both are makes the weights of all ranks equal.
        ((losses, grad_norms),) = observed
        assert torch.equal(losses, outcome.losses)
        assert torch.equal(grad_norms, outcome.grad_norms)
        observed.clear()
        candidates = torch.zeros(NUM_USERS, 5, dtype=torch.int32)
        candidates[step.candidates.user_ids] = step.candidates.values()
        dist.all_reduce(candidates)
        kept.append(candidates[: len(LENGTHS)])
    return said, kept, whole_weights(step)


def assert_near(ours: Tensor, theirs: Tensor, name: str) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: {text}")


def test_two_ranks_say_and_do_what_one_does() -> None:
    ((said, kept, weights),) = run_ranks(1, stepped, ONE)
    # Nobody has candidates before the end of the second epoch: the warm-up.
    assert [bool((each >= 0).any()) for each in kept] == [False, True, True]
    assert [bool(of_step["enhancer_counts"].any()) for of_step in said] == [False, False, True]
    for of_step in said:
        assert of_step["num_events"] == sum(LENGTHS)
        assert of_step["signals"].tolist() == [1, 0, 0, 0]
    for their_said, their_kept, their_weights in run_ranks(2, stepped, TWO):
        for ours, theirs in zip(said, their_said, strict=True):
            for name in FIELDS:
                assert_near(theirs[name], ours[name], name)
        for ours, theirs in zip(kept, their_kept, strict=True):
            assert torch.equal(theirs, ours)
        for name, value in weights.items():
            assert_near(their_weights[name], value, name)


def test_a_sum_under_way_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Work:
        def __init__(self, total: Tensor) -> None:
            self.total = total

        def wait(self) -> None:
            self.total += 10

    def all_reduce(total: Tensor, *, async_op: bool) -> Work:
        assert async_op
        assert total.is_contiguous(), "NCCL takes nothing else"
        return Work(total)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    assert _Reduction(torch.tensor([[1.0, 2], [3, 4]]).T[0]).result().tolist() == [11, 13]


def without_pairs() -> list[float]:
    step: Any = small_step(small_config())
    outcome = step(join(global_batch(0, [1])), 0)
    assert all(value.isfinite().all() for value in step.engine.module.parameters())
    return outcome.losses.tolist()


def test_one_event_alone_has_no_retrieval_loss_and_one_label() -> None:
    ((retrieval, ranking),) = run_ranks(1, without_pairs)
    assert retrieval == 0
    # A fresh model's probability is near one half.
    assert ranking == pytest.approx(math.log(2), abs=0.2)

"""The definition against numbers worked out by hand and against PyTorch's own losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unigrf_kernels.ops.joint_loss import joint_loss

from .cases import CASES, EVERYTHING, Case, make_inputs, run, to_float64

LN_2, LN_3, LN_5 = math.log(2), math.log(3), math.log(5)
IMPLEMENTATIONS = ("reference", "torch", "triton")


def column(*values: float, requires_grad: bool = True) -> Tensor:
    return torch.tensor(values)[:, None].requires_grad_(requires_grad)


def by_hand(**changes: Any) -> dict[str, Any]:
    """One pair of width 1 whose exponentiated logits are 2 (positive), 3 and 5; one label 1 with odds of 3."""
    arguments: dict[str, Any] = {
        "hidden": torch.tensor([[1.0], [1.0]], requires_grad=True),
        "retrieval_rows": torch.tensor([0]),
        "positives": column(LN_2),
        "positive_ids": torch.tensor([7]),
        "negatives": column(LN_3, LN_5),
        "negative_ids": torch.tensor([8, 9]),
        "ranking_rows": torch.tensor([1]),
        "head_weight": column(LN_2),
        "head_bias": torch.tensor([LN_3 - LN_2], requires_grad=True),
        "labels": torch.tensor([[1.0]]),
        "temperature": 1.0,
        "normalize": False,
    }
    return arguments | changes


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
class TestByHand:
    """Fractions that can be checked on paper; torch and Triton must find them as well."""

    def test_losses_counts_and_logits(self, implementation: str) -> None:
        loss = joint_loss(**by_hand(), implementation=implementation)
        assert float(loss.retrieval_sum) == pytest.approx(LN_5)  # probability 2 / 10
        assert float(loss.ranking_sum) == pytest.approx(math.log(4 / 3))  # probability 3 / 4
        assert float(loss.retrieval_count) == 1
        assert float(loss.ranking_count) == 1
        assert loss.ranking_logits.tolist() == [[pytest.approx(LN_3)]]

    def test_gradients_and_norms(self, implementation: str) -> None:
        arguments = by_hand()
        loss = joint_loss(**arguments, implementation=implementation)
        (2 * loss.retrieval_sum + 8 * loss.ranking_sum).backward()
        dquery = -LN_2 + (2 * LN_2 + 3 * LN_3 + 5 * LN_5) / 10
        assert arguments["positives"].grad.tolist() == [[pytest.approx(2 * -0.8)]]
        assert arguments["negatives"].grad.flatten().tolist() == pytest.approx([2 * 0.3, 2 * 0.5])
        assert arguments["hidden"].grad.flatten().tolist() == pytest.approx([2 * dquery, 8 * -0.25 * LN_2])
        assert arguments["head_weight"].grad.tolist() == [[pytest.approx(8 * -0.25)]]
        assert arguments["head_bias"].grad.tolist() == [pytest.approx(8 * -0.25)]
        assert float(loss.retrieval_sq_norm) == pytest.approx(dquery**2)
        assert float(loss.ranking_sq_norm) == pytest.approx((0.25 * LN_2) ** 2)

    def test_log_q_divides_what_is_exponentiated(self, implementation: str) -> None:
        arguments = by_hand(positive_log_q=torch.tensor([LN_2]), negative_log_q=torch.tensor([0.0, -LN_2]))
        # 2 / 2, 3 / 1 and 5 / (1 / 2): probability 1 / 14.
        loss = joint_loss(**arguments, implementation=implementation)
        assert float(loss.retrieval_sum) == pytest.approx(math.log(14))

    def test_a_pair_does_not_count_its_own_item(self, implementation: str) -> None:
        loss = joint_loss(**by_hand(negative_ids=torch.tensor([7, 9])), implementation=implementation)
        assert float(loss.retrieval_sum) == pytest.approx(math.log(7 / 2))

    def test_the_mask_removes_the_column_of_its_bit(self, implementation: str) -> None:
        masked = by_hand(negative_mask=torch.tensor([[0], [2]]).int(), negative_mask_rows=torch.tensor([1]))
        loss = joint_loss(**masked, implementation=implementation)
        assert float(loss.retrieval_sum) == pytest.approx(math.log(5 / 2))

    def test_user_negatives_count_unless_absent_or_hit(self, implementation: str) -> None:
        per_user = {
            "user_negatives": torch.full((1, 3, 1), math.log(10)),
            "user_negative_ids": torch.tensor([[-1, 7, 11]]),
            "retrieval_users": torch.tensor([0]),
        }
        loss = joint_loss(**by_hand(**per_user), implementation=implementation)
        assert float(loss.retrieval_sum) == pytest.approx(math.log(20 / 2))

    def test_weights_and_missing_labels(self, implementation: str) -> None:
        changes = {
            "retrieval_weights": torch.tensor([0.5]),
            "head_weight": column(LN_2, 0.0),
            "head_bias": torch.tensor([LN_3 - LN_2, 0.0]),
            "ranking_rows": torch.tensor([1, 1]),
            "labels": torch.tensor([[1.0, math.nan], [math.nan, 0.0]]),
            "task_weights": torch.tensor([2.0, 3.0]),
        }
        loss = joint_loss(**by_hand(**changes), implementation=implementation)
        assert float(loss.retrieval_sum) == pytest.approx(LN_5 / 2)
        assert float(loss.retrieval_count) == 0.5
        assert float(loss.ranking_sum) == pytest.approx(2 * math.log(4 / 3) + 3 * LN_2)
        assert float(loss.ranking_count) == 2

    def test_normalisation(self, implementation: str) -> None:
        arguments = by_hand(
            hidden=torch.tensor([[3.0, 4.0], [0.0, 1.0]], requires_grad=True),
            positives=torch.tensor([[5.0, 0.0]]),
            negatives=torch.tensor([[0.0, 2.0]], requires_grad=True),
            negative_ids=torch.tensor([9]),
            head_weight=torch.zeros(1, 2),
            temperature=0.1 / LN_2,
            normalize=True,
        )
        # Cosines 3/5 and 4/5: exponentiated logits 2^6 and 2^8, probability 1/5.
        loss = joint_loss(**arguments, implementation=implementation)
        loss.retrieval_sum.backward()
        assert float(loss.retrieval_sum) == pytest.approx(LN_5)
        # Direction's gradient 8 ln 2 (-1, 1); without its part along (3, 4) / 5, over the norm 5.
        expected = [8 * LN_2 * part / 5 for part in (-1 - 0.2 * 0.6, 1 - 0.2 * 0.8)]
        assert arguments["hidden"].grad[0].tolist() == pytest.approx(expected)
        # Four fifths of 10 ln 2 (3, 4) / 5, without the part along (0, 1), over the norm 2.
        assert arguments["negatives"].grad[0].tolist() == pytest.approx([8 * LN_2 * 0.6 / 2, 0], abs=1e-6)


def test_whole_catalogue_as_negatives_is_cross_entropy() -> None:
    inputs = to_float64(make_inputs(Case(K=30, num_ids=30)))
    inputs["negative_ids"] = torch.randperm(30, device=inputs["hidden"].device)
    catalogue = torch.empty_like(inputs["negatives"])
    catalogue[inputs["negative_ids"]] = inputs["negatives"]
    inputs["positives"] = catalogue[inputs["positive_ids"]]
    query = F.normalize(inputs["hidden"][inputs["retrieval_rows"]])
    logits = query @ F.normalize(catalogue).T / inputs["temperature"]
    expected = F.cross_entropy(logits, inputs["positive_ids"], reduction="sum")
    torch.testing.assert_close(run(inputs, "reference")["retrieval_sum"], expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.T], ids=str)
def test_squared_norms_are_those_of_autograd(case: Case) -> None:
    inputs = to_float64(make_inputs(case))
    inputs["hidden"].requires_grad_()
    loss = joint_loss(**inputs, implementation="reference")
    for task in ("retrieval", "ranking"):
        (gradient,) = torch.autograd.grad(getattr(loss, f"{task}_sum"), inputs["hidden"], retain_graph=True)
        torch.testing.assert_close(getattr(loss, f"{task}_sq_norm"), gradient.square().sum())


@pytest.mark.parametrize("ids", [(2**24, 2**24 + 1), (5, 5 + 2**32), (2**62, 2**62 + 1)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_ids_that_narrower_numbers_would_confuse_are_told_apart(implementation: str, ids: tuple[int, int]) -> None:
    arguments = by_hand(positive_ids=torch.tensor([ids[0]]), negative_ids=torch.tensor([ids[1], ids[0]]))
    loss = joint_loss(**arguments, implementation=implementation)
    assert float(loss.retrieval_sum) == pytest.approx(math.log(5 / 2))


def test_adding_to_every_log_q_changes_nothing() -> None:
    inputs = to_float64(make_inputs(EVERYTHING))
    del inputs["user_negatives"], inputs["user_negative_ids"], inputs["retrieval_users"]
    shifted = {**inputs, **{name: inputs[name] + 2.5 for name in ("positive_log_q", "negative_log_q")}}
    before, after = run(inputs, "reference"), run(shifted, "reference")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, msg=name)

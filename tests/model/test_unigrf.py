"""The assembled model against the method's definition in ``tests.model.reference``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.reference import Expected
from tests.model.small_model import CANDIDATES, LABELS, Small, jagged_batch, model_config, small_model
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.unigrf import StepSums

RETRIEVAL = "objective__retrieval__"
LLAMA = {"model__backbone": "llama", "model__heads": 4, "model__key_heads": 2}
# The corrections are fp32 whatever the dtype of the model.
CORRECTED = 1e-6
EXACT = 1e-10


@dataclass(frozen=True)
class Case:
    changes: dict[str, Any] = field(default_factory=dict)
    side: bool = False
    dtype: torch.dtype = torch.float64
    tolerance: float = EXACT
    context: list[int] | None = None


def sampled(distribution: str, **more: Any) -> dict[str, Any]:
    return {f"{RETRIEVAL}negatives": "sampled", f"{RETRIEVAL}distribution": distribution, **more}


CASES = {
    "hstu": Case(),
    "hstu_without_position_bias": Case({"model__position_bias": False}),
    "hstu_without_time_bias": Case({"model__time_bias": False}),
    "hstu_behaviours_carry_items": Case({"model__behaviours_carry_items": True}, side=True),
    "hstu_query_time_visible": Case({"model__query_time_visible": True}),
    "hstu_side_features": Case(side=True),
    "hstu_fp32": Case(dtype=torch.float32, tolerance=2e-5),
    "llama": Case(LLAMA),
    "llama_without_biases": Case({**LLAMA, "model__position_bias": False, "model__time_bias": False}, side=True),
    "llama_query_time_visible": Case({**LLAMA, "model__query_time_visible": True}),
    "llama_fp32": Case(LLAMA, dtype=torch.float32, tolerance=2e-5),
    "uniform_samples": Case(sampled("uniform")),
    "popular_samples": Case(sampled("log_popularity"), tolerance=CORRECTED),
    "popular_samples_uncorrected": Case(sampled("log_popularity", **{f"{RETRIEVAL}logq_correction": False})),
    "in_batch": Case({f"{RETRIEVAL}negatives": "in_batch"}, tolerance=CORRECTED),
    "in_batch_uncorrected": Case(
        {f"{RETRIEVAL}negatives": "in_batch", f"{RETRIEVAL}logq_correction": False},
    ),
    "mixed_uniform": Case({f"{RETRIEVAL}negatives": "mixed"}, tolerance=CORRECTED),
    "mixed_popular": Case(
        {f"{RETRIEVAL}negatives": "mixed", f"{RETRIEVAL}distribution": "log_popularity"}, tolerance=CORRECTED
    ),
    "seen_items_as_negatives": Case({f"{RETRIEVAL}mask_seen_negatives": False}),
    "seen_items_as_negatives_in_samples": Case(
        sampled("uniform", **{f"{RETRIEVAL}mask_seen_negatives": False}, model__blocks=1)
    ),
    "products_instead_of_cosines": Case({f"{RETRIEVAL}normalize": False, f"{RETRIEVAL}temperature": 4.0}),
    "low_temperature": Case({f"{RETRIEVAL}temperature": 0.05}, tolerance=1e-9),
    "first_events_as_context": Case(context=[2, 0, 0, 3, 2]),
    "first_events_as_context_in_samples": Case(sampled("uniform"), context=[0, 1, 0, 6, 1]),
    "no_enhancer": Case({"objective__enhancer": None}),
    "no_enhancer_and_nothing_masked": Case(
        {"objective__enhancer": None, f"{RETRIEVAL}mask_seen_negatives": False}
    ),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def compared(request: pytest.FixtureRequest) -> tuple[Case, Small, StepSums, Expected, dict[str, tuple]]:
    """The model and the definition on one batch, and by name the gradients of a weighted sum of both losses."""
    case: Case = request.param
    context = None if case.context is None else torch.tensor(case.context)
    batch = replace(jagged_batch(), context_lengths=context)
    small = small_model(model_config(**case.changes), dtype=case.dtype, side=case.side, batch=batch)
    reference, vectors = small.reference()
    ours = small.forward()
    theirs = reference.expected(small.batch, vectors, small.negatives.ids.tolist(), small.candidate_ids)
    leaves = small.leaves()
    own_leaves = {**reference.parameters, **vars(vectors)}
    gradients = zip(
        leaves,
        gradient(ours.retrieval, ours.ranking, list(leaves.values())),
        gradient(theirs.retrieval, theirs.ranking, [own_leaves[name] for name in leaves]),
        strict=True,
    )
    return case, small, ours, theirs, {name: (mine, other) for name, mine, other in gradients}


def gradient(retrieval: Tensor, ranking: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(0.7 * retrieval + 1.9 * ranking, leaves, materialize_grads=True, allow_unused=True)


def assert_near(ours: Tensor, theirs: Tensor | float, tolerance: float) -> None:
    torch.testing.assert_close(
        ours.detach().double(), torch.as_tensor(theirs).detach().double(), rtol=tolerance, atol=tolerance
    )


def test_both_losses_are_those_of_the_definition(compared: tuple) -> None:
    case, _, ours, theirs, _ = compared
    assert_near(ours.retrieval, theirs.retrieval, case.tolerance)
    assert_near(ours.ranking, theirs.ranking, case.tolerance)


def test_both_gradient_norms_are_those_at_the_hidden_states(compared: tuple) -> None:
    case, _, ours, theirs, _ = compared
    assert_near(ours.sq_norms, torch.tensor(theirs.sq_norms, dtype=torch.float64), 2 * case.tolerance)


def test_every_gradient_is_that_of_the_definition(compared: tuple) -> None:
    case, _, _, _, gradients = compared
    for name, (ours, theirs) in gradients.items():
        scale = max(1.0, theirs.abs().max().item())
        assert (ours.double() - theirs).abs().max() <= 5 * case.tolerance * scale, name
        assert theirs.abs().max() > 1e-3 or name == "candidate_side", f"{name} does not matter to this batch"


def test_the_counts_are_those_of_pairs_and_labels(compared: tuple) -> None:
    _, small, ours, theirs, _ = compared
    assert small.model.count_positions(small.batch).tolist() == list(theirs.counts)
    hard = sum(len(user.hard_negatives) for user in theirs.targets)
    soft = sum(len(user.soft_positives) for user in theirs.targets)
    assert ours.enhancer_counts.tolist() == [hard, soft]


def test_the_next_candidates_are_the_best_unseen_ones(compared: tuple) -> None:
    _, small, ours, theirs, _ = compared
    if small.config.objective.enhancer is None:
        assert ours.next_candidates is None
    else:
        assert ours.next_candidates.tolist() == theirs.next_candidates


def test_everything_that_the_method_treats_apart_occurs_in_the_batch(compared: tuple) -> None:
    _, small, _, theirs, _ = compared
    retrieval, is_on = small.config.objective.retrieval, small.config.objective.enhancer is not None
    assert theirs.masked["positive"]
    assert bool(theirs.masked["window"]) == (retrieval.mask_seen_negatives is not False)
    assert bool(theirs.masked["prior"]) == (retrieval.mask_seen_negatives is not False)
    assert bool(theirs.masked["above_threshold"]) == is_on
    for name in ("hard_negatives", "soft_positives", "above_threshold"):
        assert any(getattr(user, name) for user in theirs.targets) == is_on
    if retrieval.negatives in ("sampled", "mixed"):
        assert small.negatives.ids.unique().numel() < small.negatives.ids.numel()


@pytest.mark.parametrize("changes", [{}, LLAMA], ids=["hstu", "llama"])
@pytest.mark.parametrize("carries", [False, True], ids=["", "behaviours_carry_items"])
def test_evaluation_reads_the_state_before_the_last_event_and_the_last_item(changes: dict, carries: bool) -> None:
    config = model_config(
        **changes, objective__enhancer=None, model__behaviours_carry_items=carries, data__max_events=6
    )
    small = small_model(config, side=True)
    reference, vectors = small.reference()
    scores = small.model(small.vectors.items, small.batch, small.vectors.side)
    hidden = reference.expected(small.batch, vectors, small.negatives.ids.tolist()).hidden
    assert scores.valid.tolist() == [True, False, False, True, True]
    for user, states in enumerate(hidden):
        if len(states) >= 4:
            assert_near(scores.queries[user], states[-3], 1e-6)
            assert_near(scores.ranking_logits[user], torch.stack(reference.ranking_logits(states[-2])), 1e-6)
        else:
            assert not scores.queries[user].any()


def test_the_labels_tell_the_tasks_apart() -> None:
    columns = list(zip(*LABELS, strict=True))
    assert len({str(column) for column in columns}) == len(columns)


def test_a_batch_of_nobody_costs_nothing() -> None:
    small = small_model(model_config(), batch=JaggedBatch.empty(), candidate_ids=CANDIDATES[:0])
    ours = small.forward()
    assert ours.retrieval == ours.ranking == 0
    assert not ours.sq_norms.any()
    assert ours.next_candidates.shape == (0, 5)
    for value in gradient(ours.retrieval, ours.ranking, list(small.leaves().values())):
        assert not value.any()

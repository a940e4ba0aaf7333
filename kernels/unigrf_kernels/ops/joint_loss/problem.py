"""The values that travel between the parts of the operator.

Letters, here and in all files of this folder: ``T`` hidden rows, ``D`` width, ``P`` retrieval entries,
``K`` shared negatives, ``V`` rows of the mask, ``U`` users, ``M`` own negatives per user, ``R`` ranking
entries, ``A`` ranking tasks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-6
"""Least norm that a vector is divided by."""


class JointLoss(NamedTuple):
    """Sums, never means: the divisor is a count over all ranks, which the caller knows.

    fp32, fp64 where ``hidden`` is. Only the two sums are differentiable.
    """

    retrieval_sum: Tensor
    """``[]`` sum of the entries' weighted softmax losses."""
    ranking_sum: Tensor
    """``[]`` sum of the weighted binary cross entropies of all labels that are there."""
    retrieval_count: Tensor
    """``[]`` sum of the entries' weights."""
    ranking_count: Tensor
    """``[]`` number of labels that are there."""
    retrieval_sq_norm: Tensor
    """``[]`` squared L2 norm of d(retrieval_sum)/d(hidden); NaN where ``hidden`` needs no gradient."""
    ranking_sq_norm: Tensor
    """``[]`` squared L2 norm of d(ranking_sum)/d(hidden); NaN where ``hidden`` needs no gradient."""
    ranking_logits: Tensor
    """``[R, A]``."""


class Problem(NamedTuple):
    """Checked arguments of one call; `joint_loss` says what each is."""

    hidden: Tensor
    positives: Tensor
    negatives: Tensor
    user_negatives: Tensor | None
    head_weight: Tensor
    head_bias: Tensor
    retrieval_rows: Tensor
    positive_ids: Tensor
    negative_ids: Tensor
    retrieval_weights: Tensor | None
    positive_log_q: Tensor | None
    negative_log_q: Tensor | None
    retrieval_users: Tensor | None
    user_negative_ids: Tensor | None
    negative_mask: Tensor | None
    negative_mask_rows: Tensor | None
    ranking_rows: Tensor
    labels: Tensor
    task_weights: Tensor | None
    temperature: float
    normalize: bool

    @property
    def accumulator(self) -> torch.dtype:
        """The dtype of sums and saved gradients."""
        return torch.float64 if self.hidden.dtype == torch.float64 else torch.float32


class Wanted(NamedTuple):
    """Which inputs need a gradient, in the order in which `Problem` holds them."""

    hidden: bool
    positives: bool
    negatives: bool
    user_negatives: bool
    head_weight: bool
    head_bias: bool


class Computed(NamedTuple):
    """What one forward leaves: the fields of `JointLoss`, then the gradients of the two sums, unscaled.

    A gradient that is not wanted is an empty ``[0]``. Gradients of hidden rows stay apart by task and lie in
    the order of the entries; where several entries share a hidden row, one of them holds the sum, the others
    hold zeros.
    """

    retrieval_sum: Tensor
    ranking_sum: Tensor
    retrieval_count: Tensor
    ranking_count: Tensor
    retrieval_sq_norm: Tensor
    ranking_sq_norm: Tensor
    ranking_logits: Tensor
    retrieval_row_grad: Tensor
    ranking_row_grad: Tensor
    positives_grad: Tensor
    negatives_grad: Tensor
    user_negatives_grad: Tensor
    head_weight_grad: Tensor
    head_bias_grad: Tensor


def exact_sum(values: Tensor) -> Tensor:
    """``[]`` sum of a number per entry, accumulated in fp64: as exact as the values are, in any order."""
    return values.sum(dtype=torch.float64).to(values.dtype)


def empty_result(problem: Problem, wanted: Wanted) -> Computed:
    """A `Computed` of the right shapes and dtypes with nothing in it."""
    dtype = problem.accumulator

    def new(*shape: int, when: bool = True) -> Tensor:
        return problem.hidden.new_empty(shape if when else (0,), dtype=dtype)

    num_entries, width = problem.positives.shape
    num_ranking, num_tasks = problem.labels.shape
    users = (0,) if problem.user_negatives is None else problem.user_negatives.shape
    return Computed(
        retrieval_sum=new(),
        ranking_sum=new(),
        retrieval_count=new(),
        ranking_count=new(),
        retrieval_sq_norm=new(),
        ranking_sq_norm=new(),
        ranking_logits=new(num_ranking, num_tasks),
        retrieval_row_grad=new(num_entries, width, when=wanted.hidden),
        ranking_row_grad=new(num_ranking, width, when=wanted.hidden),
        positives_grad=new(num_entries, width, when=wanted.positives),
        negatives_grad=new(*problem.negatives.shape, when=wanted.negatives),
        user_negatives_grad=new(*users, when=wanted.user_negatives),
        head_weight_grad=new(*problem.head_weight.shape, when=wanted.head_weight),
        head_bias_grad=new(num_tasks, when=wanted.head_bias),
    )

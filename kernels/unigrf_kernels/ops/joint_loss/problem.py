"""The values that the parts of the operator pass to one another.

Letters, here and in all files of this folder: ``T`` hidden rows, ``D`` width, ``P`` query-positive
pairs, ``K`` shared negatives, ``V`` rows of the mask, ``U`` users, ``M`` negatives per user, ``R`` ranking
examples, ``A`` ranking tasks.

A pair is a hidden row (the query) with one positive item and a weight; its columns are the negatives that its
softmax runs over. A direction is a vector as the logits use it: of unit length with ``normalize``, else as it is.
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
    """``[]`` sum of the pairs' weighted softmax losses."""
    ranking_sum: Tensor
    """``[]`` sum of the weighted binary cross entropies of all labels that are not NaN."""
    retrieval_count: Tensor
    """``[]`` sum of the pairs' weights."""
    ranking_count: Tensor
    """``[]`` number of labels that are not NaN."""
    retrieval_sq_norm: Tensor
    """``[]`` squared L2 norm of d(retrieval_sum)/d(hidden); NaN where ``hidden`` needs no gradient."""
    ranking_sq_norm: Tensor
    """``[]`` squared L2 norm of d(ranking_sum)/d(hidden); NaN where ``hidden`` needs no gradient."""
    ranking_logits: Tensor
    """``[R, A]`` logits of the ranking head."""


class Problem(NamedTuple):
    """Arguments of one call; `joint_loss` says what each is."""

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


class NeedsGrad(NamedTuple):
    """Which inputs need a gradient, in the order in which `Problem` holds them."""

    hidden: bool
    positives: bool
    negatives: bool
    user_negatives: bool
    head_weight: bool
    head_bias: bool


class Computed(NamedTuple):
    """What one forward leaves: the fields of `JointLoss`, then the gradients of the two sums, unscaled.

    A gradient that is not needed is an empty ``[0]``. Gradients of hidden rows stay apart by task, one per pair
    (``[P, D]``) or ranking example (``[R, D]``); where several of them share a hidden row, the first holds the sum
    and the others zeros.
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
    """``[]`` sum of ``[P]`` or ``[R]`` values, accumulated in fp64: as exact as the values, in any order."""
    return values.sum(dtype=torch.float64).to(values.dtype)


def empty_result(problem: Problem, needs_grad: NeedsGrad) -> Computed:
    """A `Computed` of the right shapes and dtypes with nothing in it."""
    dtype = problem.accumulator

    def new(*shape: int, when: bool = True) -> Tensor:
        return problem.hidden.new_empty(shape if when else (0,), dtype=dtype)

    num_pairs, width = problem.positives.shape
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
        retrieval_row_grad=new(num_pairs, width, when=needs_grad.hidden),
        ranking_row_grad=new(num_ranking, width, when=needs_grad.hidden),
        positives_grad=new(num_pairs, width, when=needs_grad.positives),
        negatives_grad=new(*problem.negatives.shape, when=needs_grad.negatives),
        user_negatives_grad=new(*users, when=needs_grad.user_negatives),
        head_weight_grad=new(*problem.head_weight.shape, when=needs_grad.head_weight),
        head_bias_grad=new(num_tasks, when=needs_grad.head_bias),
    )

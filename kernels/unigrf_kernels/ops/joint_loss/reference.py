"""The definition of ``joint_loss``: every logit in memory, gradients left to autograd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .problem import EPSILON, JointLoss, Problem


def reference_joint_loss(problem: Problem) -> JointLoss:
    """Computed in the dtype of ``hidden``; returned as fp32, or fp64 where ``hidden`` is."""
    hidden, dtype = problem.hidden, problem.accumulator
    weights = _or_ones(problem.retrieval_weights, problem.positive_ids.shape, hidden)
    logits, labels = ranking_logits(problem), problem.labels
    retrieval_sum = (weights * retrieval_losses(problem)).sum()
    ranking_sum = _ranking_losses(logits, problem).sum()
    return JointLoss(
        retrieval_sum=retrieval_sum.to(dtype),
        ranking_sum=ranking_sum.to(dtype),
        retrieval_count=_or_ones(problem.retrieval_weights, weights.shape, hidden.detach().to(dtype)).sum(),
        ranking_count=(~labels.isnan()).sum().to(dtype),
        retrieval_sq_norm=_squared_norm(retrieval_sum, hidden).to(dtype),
        ranking_sq_norm=_squared_norm(ranking_sum, hidden).to(dtype),
        ranking_logits=logits.detach().to(dtype),
    )


def retrieval_losses(problem: Problem) -> Tensor:
    """``[P]`` unweighted losses: the first column of the logits is the positive, all others are negatives."""
    query = _direction(problem.hidden[problem.retrieval_rows], problem)
    positive = (query * _direction(problem.positives, problem)).sum(-1, keepdim=True) / problem.temperature
    shared = query @ _direction(problem.negatives, problem).T / problem.temperature
    if problem.positive_log_q is not None:
        positive = positive - problem.positive_log_q.to(query.dtype)[:, None]
    if problem.negative_log_q is not None:
        shared = shared - problem.negative_log_q.to(query.dtype)
    hit = problem.positive_ids[:, None] == problem.negative_ids
    columns = [positive, shared.masked_fill(hit | _masked_columns(problem), -torch.inf)]
    if problem.user_negatives is not None:
        per_user = _direction(problem.user_negatives, problem)[problem.retrieval_users]
        assert problem.user_negative_ids is not None
        user_ids = problem.user_negative_ids[problem.retrieval_users]
        absent = (user_ids == -1) | (user_ids == problem.positive_ids[:, None])
        user_logits = (query[:, None] * per_user).sum(-1) / problem.temperature
        columns.append(user_logits.masked_fill(absent, -torch.inf))
    return torch.cat(columns, dim=1).logsumexp(1) - positive[:, 0]


def ranking_logits(problem: Problem) -> Tensor:
    """``[R, A]``."""
    return problem.hidden[problem.ranking_rows] @ problem.head_weight.T + problem.head_bias


def _ranking_losses(logits: Tensor, problem: Problem) -> Tensor:
    missing = problem.labels.isnan()
    labels = problem.labels.to(logits.dtype).masked_fill(missing, 0)
    task_weights = _or_ones(problem.task_weights, labels.shape[1:], logits)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (task_weights * losses).masked_fill(missing, 0)


def _direction(vectors: Tensor, problem: Problem) -> Tensor:
    if not problem.normalize:
        return vectors
    # In float64, because the square of a large fp32 number is infinite.
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=torch.float64)
    return vectors / norms.clamp_min(EPSILON).to(vectors.dtype)


def _masked_columns(problem: Problem) -> Tensor:
    """``[P, K]`` bool, or a scalar False: the pair must not count the column."""
    if problem.negative_mask is None:
        return torch.zeros((), dtype=torch.bool, device=problem.hidden.device)
    column = torch.arange(problem.negative_ids.numel(), device=problem.hidden.device)
    bits = (problem.negative_mask[:, column // 32] >> (column % 32)) & 1
    return bits.bool()[problem.negative_mask_rows]


def _or_ones(weights: Tensor | None, shape: torch.Size, like: Tensor) -> Tensor:
    return like.new_ones(shape) if weights is None else weights.to(like.dtype)


def _squared_norm(loss: Tensor, hidden: Tensor) -> Tensor:
    if not (torch.is_grad_enabled() and hidden.requires_grad):
        return hidden.new_full((), torch.nan)
    (gradient,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    return gradient.square().sum()

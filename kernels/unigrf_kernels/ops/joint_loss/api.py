"""``joint_loss``: signature, contract, choice of implementation."""

from __future__ import annotations

from torch import Tensor

from ..implementation import Implementation, resolve_implementation
from .autograd import differentiable_joint_loss
from .checks import check_limits, check_problem
from .problem import JointLoss, Problem
from .reference import reference_joint_loss


def joint_loss(
    hidden: Tensor,
    *,
    retrieval_rows: Tensor,
    positives: Tensor,
    positive_ids: Tensor,
    negatives: Tensor,
    negative_ids: Tensor,
    ranking_rows: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    labels: Tensor,
    temperature: float,
    normalize: bool = True,
    retrieval_weights: Tensor | None = None,
    positive_log_q: Tensor | None = None,
    negative_log_q: Tensor | None = None,
    retrieval_users: Tensor | None = None,
    user_negatives: Tensor | None = None,
    user_negative_ids: Tensor | None = None,
    negative_mask: Tensor | None = None,
    negative_mask_rows: Tensor | None = None,
    task_weights: Tensor | None = None,
    implementation: Implementation | str = "auto",
) -> JointLoss:
    """Retrieval softmax and ranking cross entropy over the rows of one hidden matrix.

    With ``x' = x / max(|x|, 1e-6)`` when ``normalize``, else ``x``, and ``h_p = hidden[retrieval_rows[p]]``::

        logit(p, x, log_q) = <h_p', x'> / temperature - log_q
        allowed(p)   = {k: negative_ids[k] != positive_ids[p], bit k of negative_mask[negative_mask_rows[p]] unset}
                     + {m: user_negative_ids[u, m] not in (-1, positive_ids[p])}, u = retrieval_users[p]
        loss_p       = logsumexp(logits of the positive and of allowed(p)) - logit of the positive
        retrieval_sum = sum_p retrieval_weights[p] * loss_p

        logits       = hidden[ranking_rows] @ head_weight.T + head_bias
        ranking_sum  = sum over r, a with labels[r, a] not NaN of
                       task_weights[a] * binary_cross_entropy_with_logits(logits[r, a], labels[r, a])

    The forward computes the gradients of both sums, apart by task; backward scales them by the two upstream
    scalars. Nothing of size ``P x K`` is ever in memory, except in ``"reference"``. Sums are accumulated in
    fp32, in fp64 for fp64 inputs. Equal inputs give bit-equal results for a fixed number of threads.

    The logQ correction is that of Yi et al., RecSys 2019, equation 3: ``log_q`` is the log of how often an item
    is expected among the negatives. For a softmax over the whole catalogue the negatives are the catalogue and
    there is no ``log_q``; the positive's own copy is an accidental hit and so counts once.

    Args:
        hidden: ``[T, D]`` floating point.
        retrieval_rows: ``[P]`` int64, hidden row (query) of each query-positive pair. Rows may repeat (soft
            positives are further pairs of a row) and may serve both tasks.
        positives: ``[P, D]`` in the dtype of ``hidden``, as are all vectors and the head.
        positive_ids: ``[P]`` int64, item id of each positive.
        negatives: ``[K, D]`` shared by all pairs.
        negative_ids: ``[K]`` int64 item ids, distinct or not.
        ranking_rows: ``[R]`` int64, hidden row of each ranking example.
        head_weight: ``[A, D]``.
        head_bias: ``[A]``.
        labels: ``[R, A]`` floating point in [0, 1]; NaN where missing.
        temperature: positive.
        normalize: whether vectors are scaled to unit length.
        retrieval_weights: ``[P]`` floating point; 1 each if absent.
        positive_log_q: ``[P]`` floating point; 0 each if absent.
        negative_log_q: ``[K]`` floating point; 0 each if absent.
        retrieval_users: ``[P]`` int64, which of the ``U`` users a pair belongs to; given exactly when
            ``user_negatives`` is.
        user_negatives: ``[U, M, D]`` further negatives, counted only by the pairs of that user.
        user_negative_ids: ``[U, M]`` int64, -1 for none; given exactly when ``user_negatives`` is.
        negative_mask: ``[V, ceil(K / 32)]`` int32; bit ``k % 32`` of word ``k // 32`` masks negative ``k``.
        negative_mask_rows: ``[P]`` int64, row of the mask that applies to each pair; given exactly when
            ``negative_mask`` is.
        task_weights: ``[A]`` floating point; 1 each if absent.
        implementation: ``"auto"`` (Triton on CUDA, else torch), ``"triton"`` (fp32, bf16, fp16; ``D`` up to 512,
            ``A`` up to 16), ``"torch"``, ``"reference"``.

    Returns:
        `JointLoss`; its sums are once differentiable in ``hidden``, ``positives``, ``negatives``,
        ``user_negatives``, ``head_weight`` and ``head_bias``. ``P``, ``R``, ``K`` and ``M`` may be 0.

    Raises:
        ValueError, TypeError: an argument breaks this contract, or the implementation cannot run here.
    """
    problem = Problem(
        hidden=hidden,
        positives=positives,
        negatives=negatives,
        user_negatives=user_negatives,
        head_weight=head_weight,
        head_bias=head_bias,
        retrieval_rows=retrieval_rows,
        positive_ids=positive_ids,
        negative_ids=negative_ids,
        retrieval_weights=retrieval_weights,
        positive_log_q=positive_log_q,
        negative_log_q=negative_log_q,
        retrieval_users=retrieval_users,
        user_negative_ids=user_negative_ids,
        negative_mask=negative_mask,
        negative_mask_rows=negative_mask_rows,
        ranking_rows=ranking_rows,
        labels=labels,
        task_weights=task_weights,
        temperature=temperature,
        normalize=normalize,
    )
    check_problem(problem)
    chosen = resolve_implementation("joint_loss", implementation, hidden.device)
    if chosen is Implementation.REFERENCE:
        return reference_joint_loss(problem)
    if chosen is Implementation.TRITON:
        check_limits(problem)
    return differentiable_joint_loss(problem, chosen)

"""The plain PyTorch path: chunks of pairs whose logits stay in the cache, forward and gradients in one go.

A chunk of exponentials is made once and serves the sum, the hidden rows' gradient and the negatives' gradient:
three products of ``2 P K D`` operations and one pass of ``exp`` over ``P K`` numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .duplicates import merge_duplicates
from .problem import Computed, NeedsGrad, Problem, empty_result, exact_sum
from .torch_directions import Directions, row_products
from .torch_negatives import SharedNegatives, UserNegatives

# Elements in the logits of a chunk and in the queries of a block. On a CPU 2 MiB of fp32, the second-level cache
# of a core, and a quarter of it; elsewhere what keeps the device busy.
_CHUNK_NUMBERS = {"cpu": 1 << 19}
_BLOCK_NUMBERS = {"cpu": 1 << 17}
_NUMBERS_ELSEWHERE = 1 << 26
_MIN_ROWS = 32
# Logits within this bound need no shift by their row's maximum: sums of 2^60 of their exponentials, and the
# inverse of such a sum times the smallest, are normal fp32 numbers.
_NO_SHIFT_BOUND = 40.0


def compute(problem: Problem, needs_grad: NeedsGrad) -> Computed:
    """Both losses and the gradients that ``needs_grad`` asks for."""
    result = empty_result(problem, needs_grad)
    return result._replace(**_Retrieval(problem, needs_grad, result).run(), **_ranking(problem, needs_grad))


class _Retrieval:
    """The retrieval half of one call.

    The pairs are taken in blocks, whose vectors are gathered and normalised at once, and a block in chunks, whose
    logits fit the cache. Row gradients are written straight into ``result``.
    """

    def __init__(self, problem: Problem, needs_grad: NeedsGrad, result: Computed) -> None:
        self.problem, self.needs_grad, self.result = problem, needs_grad, result
        self.is_bounded = _logits_are_bounded(problem)
        self.num_pairs, width = problem.positives.shape
        num_columns = len(problem.negatives)
        device = problem.hidden.device.type
        chunk_numbers = _CHUNK_NUMBERS.get(device, _NUMBERS_ELSEWHERE)
        self.block_rows = max(_BLOCK_NUMBERS.get(device, _NUMBERS_ELSEWHERE) // width, _MIN_ROWS)
        self.chunk_rows = min(max(chunk_numbers // (num_columns + 1), _MIN_ROWS), self.block_rows)
        self.shared, self.per_user = None, None
        if num_columns:
            self.shared = SharedNegatives(problem, self.chunk_rows, is_bounded=self.is_bounded)
        if problem.user_negatives is not None and problem.user_negatives.shape[1]:
            self.per_user = UserNegatives(problem)
        self.sources = [source for source in (self.shared, self.per_user) if source is not None]
        # Without a shift by the largest logit, exponentials of per-user negatives need not wait for shared ones.
        self.chunk_sources = [
            source for source in self.sources if source is not self.per_user or not self.is_bounded
        ]
        self.losses = problem.hidden.new_empty(self.num_pairs, dtype=problem.accumulator)
        self.weights = torch.ones_like(self.losses)
        if problem.retrieval_weights is not None:
            self.weights.copy_(problem.retrieval_weights)

    def run(self) -> dict[str, Tensor]:
        """The retrieval fields of `Computed`."""
        for rows in _slices(self.num_pairs, self.block_rows):
            self._block(rows)
        fields = {
            "retrieval_sum": exact_sum(self.losses.mul_(self.weights)),
            "retrieval_count": exact_sum(self.weights),
            "retrieval_sq_norm": self.losses.new_full((), torch.nan),
        }
        if self.needs_grad.hidden:
            gradient = self.result.retrieval_row_grad
            merge_duplicates(self.problem.retrieval_rows, gradient, len(self.problem.hidden))
            fields["retrieval_sq_norm"] = _squared_norm(gradient)
        if self.shared is not None and self.needs_grad.negatives:
            fields["negatives_grad"] = self.shared.gradient()
        if self.per_user is not None and self.needs_grad.user_negatives:
            fields["user_negatives_grad"] = self.per_user.gradient()
        return fields

    def _block(self, rows: slice) -> None:
        problem, result = self.problem, self.result
        hidden = Directions(problem.hidden.index_select(0, problem.retrieval_rows[rows]), problem)
        query = hidden.unit / problem.temperature
        positives = Directions(problem.positives[rows], problem)
        positive = row_products(query, positives.unit)
        if problem.positive_log_q is not None:
            positive -= problem.positive_log_q[rows]
        weights = self.weights[rows]

        for source in self.sources:
            source.open_block(rows, query)
        query_grad = torch.zeros_like(query) if self.needs_grad.hidden else None
        row_max, sum_exp = torch.zeros_like(positive), torch.zeros_like(positive)
        if self.per_user is not None and self.is_bounded:
            block = slice(0, len(query))
            sum_exp += self.per_user.exponentials(block, self.per_user.logits(block)).sum(1)
        for part in _slices(len(query), self.chunk_rows):
            self._chunk(part, positive, weights, row_max, sum_exp, query_grad)

        positive_exp = (positive - row_max).exp_()
        total = positive_exp + sum_exp
        # log(1 + negatives / positive) keeps the digits of a small loss; for a large one the quotient overflows.
        self.losses[rows] = torch.where(
            sum_exp < positive_exp, (sum_exp / positive_exp).log1p_(), total.log() + row_max - positive
        )
        scale = (weights / total)[:, None]
        if self.per_user is not None and (query_grad is not None or self.needs_grad.user_negatives):
            self.per_user.close_block(scale, query_grad)
        # Gradient with respect to the positive logit, [b, 1]: weight * (probability - 1) without its cancellation.
        positive_dlogits = -sum_exp[:, None] * scale
        if query_grad is not None:
            query_grad.mul_(scale).addcmul_(positives.unit, positive_dlogits).div_(problem.temperature)
            result.retrieval_row_grad[rows] = hidden.gradient(query_grad)
        if self.needs_grad.positives:
            result.positives_grad[rows] = positives.gradient(query * positive_dlogits)

    def _chunk(
        self,
        part: slice,
        positive: Tensor,
        weights: Tensor,
        row_max: Tensor,
        sum_exp: Tensor,
        query_grad: Tensor | None,
    ) -> None:
        """Fill a part of a block's ``row_max``, ``sum_exp`` (of the negatives) and ``query_grad``.

        ``row_max`` stays 0 where logits are bounded. ``query_grad`` is the sum of directions weighted with
        exponentials: `_block` divides it by the total sum and weights it.
        """
        logits = [source.logits(part) for source in self.chunk_sources]
        if not self.is_bounded:
            row_max[part] = _subtract_row_max(positive[part], logits)
        for source, exponents in zip(self.chunk_sources, logits, strict=True):
            sum_exp[part] += source.exponentials(part, exponents).sum(1)
        if self.shared is None:
            return
        if query_grad is not None:
            self.shared.add_query_gradient(query_grad[part], logits[0])
        if self.needs_grad.negatives:
            total = (positive[part] - row_max[part]).exp_().add_(sum_exp[part])
            self.shared.collect_gradient(part, logits[0], (weights[part] / total)[:, None])


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _logits_are_bounded(problem: Problem) -> bool:
    """Whether no logit can exceed the bound; known in advance when vectors are normalised.

    logQ corrections are read only on the CPU: on a device that would wait for it.
    """
    corrections = [q for q in (problem.positive_log_q, problem.negative_log_q) if q is not None and q.numel()]
    if not problem.normalize or (corrections and problem.hidden.device.type != "cpu"):
        return False
    largest = max((float(q.abs().max()) for q in corrections), default=0.0)
    return 1 / problem.temperature + largest <= _NO_SHIFT_BOUND


def _subtract_row_max(positive: Tensor, logits: list[Tensor]) -> Tensor:
    """``[c]`` largest logit of each row, which is subtracted from ``logits`` in place."""
    row_max = positive
    for part in logits:
        row_max = torch.maximum(row_max, part.amax(1))
    for part in logits:
        part.sub_(row_max[:, None])
    return row_max


def _ranking(problem: Problem, needs_grad: NeedsGrad) -> dict[str, Tensor]:
    """The ranking fields of `Computed`."""
    dtype = problem.accumulator
    rows = problem.hidden.index_select(0, problem.ranking_rows).to(dtype)
    head = problem.head_weight.to(dtype)
    logits = torch.addmm(problem.head_bias.to(dtype), rows, head.t())
    present = ~problem.labels.isnan()
    labels = torch.where(present, problem.labels, 0).to(dtype)
    weights = present.to(dtype) if problem.task_weights is None else present * problem.task_weights.to(dtype)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    fields = {
        "ranking_sum": exact_sum(losses * weights),
        "ranking_count": present.sum().to(dtype),
        "ranking_sq_norm": losses.new_full((), torch.nan),
        "ranking_logits": logits,
    }
    logit_grad = (logits.sigmoid() - labels).mul_(weights)
    if needs_grad.hidden:
        gradient = merge_duplicates(problem.ranking_rows, logit_grad @ head, len(problem.hidden))
        fields["ranking_row_grad"] = gradient
        fields["ranking_sq_norm"] = _squared_norm(gradient)
    if needs_grad.head_weight:
        fields["head_weight_grad"] = logit_grad.t() @ rows
    if needs_grad.head_bias:
        fields["head_bias_grad"] = logit_grad.sum(0)
    return fields


def _squared_norm(gradient: Tensor) -> Tensor:
    return exact_sum(row_products(gradient, gradient))

"""The plain PyTorch path: chunks of entries whose logits stay in the cache, forward and gradients in one go.

A chunk of exponentials is made once and serves the sum, the hidden rows' gradient and the negatives' gradient:
three products of ``2 P K D`` operations and one pass of ``exp`` over ``P K`` numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .duplicates import merge_duplicates
from .problem import Computed, Problem, Wanted, empty_result, exact_sum
from .torch_directions import Directions, row_products
from .torch_negatives import SharedNegatives, UserNegatives

# Numbers of the logits of a chunk and of the vectors of a block. On a CPU 2 MiB of fp32, the second-level cache of
# a core, and a quarter of it; elsewhere what keeps the device busy.
_CHUNK_NUMBERS = {"cpu": 1 << 19}
_BLOCK_NUMBERS = {"cpu": 1 << 17}
_NUMBERS_ELSEWHERE = 1 << 26
_MIN_ROWS = 32
# Logits within this bound need no shift by their row's maximum: sums of 2^60 of their exponentials, and the
# inverse of such a sum times the smallest, are normal fp32 numbers.
_NO_SHIFT_BOUND = 40.0


def compute(problem: Problem, wanted: Wanted) -> Computed:
    """Both losses and the gradients that are ``wanted``."""
    result = empty_result(problem, wanted)
    return result._replace(**_Retrieval(problem, wanted, result).run(), **_ranking(problem, wanted))


class _Retrieval:
    """The retrieval half of one call: blocks of entries, and in a block chunks of logits.

    Row gradients go straight into ``result``.
    """

    def __init__(self, problem: Problem, wanted: Wanted, result: Computed) -> None:
        self.problem, self.wanted, self.result = problem, wanted, result
        self.is_bounded = _logits_are_bounded(problem)
        self.num_entries, width = problem.positives.shape
        num_columns = len(problem.negatives)
        device = problem.hidden.device.type
        chunk_numbers = _CHUNK_NUMBERS.get(device, _NUMBERS_ELSEWHERE)
        self.block_rows = max(_BLOCK_NUMBERS.get(device, _NUMBERS_ELSEWHERE) // width, _MIN_ROWS)
        self.chunk_rows = min(max(chunk_numbers // (num_columns + 1), _MIN_ROWS), self.block_rows)
        self.shared, self.own = None, None
        if num_columns:
            self.shared = SharedNegatives(problem, self.chunk_rows, is_bounded=self.is_bounded)
        if problem.user_negatives is not None and problem.user_negatives.shape[1]:
            self.own = UserNegatives(problem)
        self.sources = [source for source in (self.shared, self.own) if source is not None]
        # Without a shift by the largest logit, users' own exponentials need not wait for the other logits.
        self.of_chunks = [source for source in self.sources if source is not self.own or not self.is_bounded]
        self.losses = problem.hidden.new_empty(self.num_entries, dtype=problem.accumulator)
        self.weights = torch.ones_like(self.losses)
        if problem.retrieval_weights is not None:
            self.weights.copy_(problem.retrieval_weights)

    def run(self) -> dict[str, Tensor]:
        """The retrieval fields of `Computed`."""
        for rows in _slices(self.num_entries, self.block_rows):
            self._block(rows)
        fields = {
            "retrieval_sum": exact_sum(self.losses.mul_(self.weights)),
            "retrieval_count": exact_sum(self.weights),
            "retrieval_sq_norm": self.losses.new_full((), torch.nan),
        }
        if self.wanted.hidden:
            gradient = self.result.retrieval_row_grad
            merge_duplicates(self.problem.retrieval_rows, gradient, len(self.problem.hidden))
            fields["retrieval_sq_norm"] = _squared_norm(gradient)
        if self.shared is not None and self.wanted.negatives:
            fields["negatives_grad"] = self.shared.gradient()
        if self.own is not None and self.wanted.user_negatives:
            fields["user_negatives_grad"] = self.own.gradient()
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
        query_grad = torch.zeros_like(query) if self.wanted.hidden else None
        peak, rest = torch.zeros_like(positive), torch.zeros_like(positive)
        if self.own is not None and self.is_bounded:
            block = slice(0, len(query))
            rest += self.own.exponentials(block, self.own.logits(block)).sum(1)
        for part in _slices(len(query), self.chunk_rows):
            self._chunk(part, positive, weights, peak, rest, query_grad)

        own = (positive - peak).exp_()
        total = own + rest
        # A small loss is what the negatives add to the positive; a large one would overflow that quotient.
        self.losses[rows] = torch.where(rest < own, (rest / own).log1p_(), total.log() + peak - positive)
        scale = (weights / total)[:, None]
        if self.own is not None and (query_grad is not None or self.wanted.user_negatives):
            self.own.close_block(scale, query_grad)
        # Gradient of the sum by the positive logit: weight * (probability - 1), without the cancellation.
        pull = -rest[:, None] * scale
        if query_grad is not None:
            query_grad.mul_(scale).addcmul_(positives.unit, pull).div_(problem.temperature)
            result.retrieval_row_grad[rows] = hidden.gradient(query_grad)
        if self.wanted.positives:
            result.positives_grad[rows] = positives.gradient(query * pull)

    def _chunk(
        self,
        part: slice,
        positive: Tensor,
        weights: Tensor,
        peak: Tensor,
        rest: Tensor,
        query_grad: Tensor | None,
    ) -> None:
        """Fill a part of a block: the largest logit, the negatives' sum of exponentials, the query's gradient.

        The last is still to be divided by the total sum, and to be weighted.
        """
        logits = [source.logits(part) for source in self.of_chunks]
        if not self.is_bounded:
            peak[part] = _subtract_peak(positive[part], logits)
        for source, exponents in zip(self.of_chunks, logits, strict=True):
            rest[part] += source.exponentials(part, exponents).sum(1)
        if self.shared is None:
            return
        if query_grad is not None:
            self.shared.add_query_gradient(query_grad[part], logits[0])
        if self.wanted.negatives:
            total = (positive[part] - peak[part]).exp_().add_(rest[part])
            self.shared.collect_gradient(part, logits[0], (weights[part] / total)[:, None])


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _logits_are_bounded(problem: Problem) -> bool:
    """Whether no logit can leave the bound; known without looking at them when vectors are normalised."""
    corrections = [q for q in (problem.positive_log_q, problem.negative_log_q) if q is not None and q.numel()]
    if not problem.normalize or (corrections and problem.hidden.device.type != "cpu"):
        return False
    largest = max((float(q.abs().max()) for q in corrections), default=0.0)
    return 1 / problem.temperature + largest <= _NO_SHIFT_BOUND


def _subtract_peak(positive: Tensor, logits: list[Tensor]) -> Tensor:
    """``[c]`` largest logit of each row, which is subtracted from ``logits`` in place."""
    peak = positive
    for part in logits:
        peak = torch.maximum(peak, part.amax(1))
    for part in logits:
        part.sub_(peak[:, None])
    return peak


def _ranking(problem: Problem, wanted: Wanted) -> dict[str, Tensor]:
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
    if wanted.hidden:
        gradient = merge_duplicates(problem.ranking_rows, logit_grad @ head, len(problem.hidden))
        fields["ranking_row_grad"] = gradient
        fields["ranking_sq_norm"] = _squared_norm(gradient)
    if wanted.head_weight:
        fields["head_weight_grad"] = logit_grad.t() @ rows
    if wanted.head_bias:
        fields["head_bias_grad"] = logit_grad.sum(0)
    return fields


def _squared_norm(gradient: Tensor) -> Tensor:
    return exact_sum(row_products(gradient, gradient))

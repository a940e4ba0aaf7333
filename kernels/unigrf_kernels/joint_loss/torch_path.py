"""The plain PyTorch path: chunks of logits that stay in the cache, forward and gradients in one go.

A chunk of exponentials is made once and serves the sum, the hidden rows' gradient and the negatives' gradient:
three products of ``2 P K D`` operations and one pass of ``exp`` over ``P K`` numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .duplicates import merge_duplicates
from .problem import Computed, Problem, Wanted, empty_result
from .torch_directions import Directions
from .torch_negatives import SharedNegatives, UserNegatives

# On a CPU 2 MiB of fp32 logits, the second-level cache of a core. A product of few rows is slow.
_CHUNK_LOGITS = {"cpu": 1 << 19}
_CHUNK_LOGITS_ON_DEVICE = 1 << 26
_MIN_CHUNK_ROWS, _MAX_CHUNK_ROWS = 32, 512
# Logits within this bound need no shift by their row's maximum: sums of 2^60 of their exponentials, and the
# inverse of such a sum times the smallest, are normal fp32 numbers.
_NO_SHIFT_BOUND = 40.0


def compute(problem: Problem, wanted: Wanted) -> Computed:
    """Both losses and the gradients that are ``wanted``."""
    fields = {**Retrieval(problem, wanted).run(), **_ranking(problem, wanted)}
    return empty_result(problem, wanted)._replace(**fields)


class Retrieval:
    """The retrieval half of one call."""

    def __init__(self, problem: Problem, wanted: Wanted) -> None:
        self.problem, self.wanted = problem, wanted
        self.hidden = Directions(problem.hidden.index_select(0, problem.retrieval_rows), problem)
        self.query = self.hidden.unit / problem.temperature
        self.positives = Directions(problem.positives, problem)
        self.positive_logits = (self.query * self.positives.unit).sum(0)
        if problem.positive_log_q is not None:
            self.positive_logits -= problem.positive_log_q
        self.weights = torch.ones_like(self.positive_logits)
        if problem.retrieval_weights is not None:
            self.weights.copy_(problem.retrieval_weights)

        self.num_entries, num_columns = problem.positive_ids.numel(), problem.negative_ids.numel()
        num_own = 0 if problem.user_negatives is None else problem.user_negatives.shape[1]
        self.chunk_rows = self._rows_per_chunk(num_columns + num_own * self.query.shape[0])
        self.shared = SharedNegatives(problem, self.query, self.chunk_rows) if num_columns else None
        self.own = UserNegatives(problem, self.query) if num_own else None

    def _rows_per_chunk(self, numbers_per_row: int) -> int:
        target = _CHUNK_LOGITS.get(self.query.device.type, _CHUNK_LOGITS_ON_DEVICE)
        rows = target // max(numbers_per_row, 1)
        most = _MAX_CHUNK_ROWS if self.query.device.type == "cpu" else self.num_entries
        return max(min(rows, most), _MIN_CHUNK_ROWS)

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, self.num_entries, self.chunk_rows):
            yield slice(start, min(start + self.chunk_rows, self.num_entries))

    def _logits_are_bounded(self) -> bool:
        """Whether no logit can leave the bound; known without looking at them when vectors are normalised."""
        problem = self.problem
        corrections = [q for q in (problem.positive_log_q, problem.negative_log_q) if q is not None and q.numel()]
        if not problem.normalize or (corrections and problem.hidden.device.type != "cpu"):
            return False
        largest = max((float(q.abs().max()) for q in corrections), default=0.0)
        return 1 / problem.temperature + largest <= _NO_SHIFT_BOUND

    def run(self) -> dict[str, Tensor]:
        """The retrieval fields of `Computed`."""
        peaks = torch.zeros_like(self.positive_logits)
        totals = torch.empty_like(self.positive_logits)
        query_grad = torch.zeros_like(self.query) if self.wanted.hidden else None
        is_bounded = self._logits_are_bounded()
        for rows in self._chunks():
            logits = [source.logits(rows) for source in (self.shared, self.own) if source is not None]
            if not is_bounded:
                peaks[rows] = self._shift(rows, logits)
            total = torch.exp(self.positive_logits[rows] - peaks[rows])
            for part in logits:
                total += part.exp_().sum(1)
            totals[rows] = total
            self._collect(rows, logits, self.weights[rows] / total, query_grad)
        return self._finish(peaks, totals, query_grad)

    def _shift(self, rows: slice, logits: list[Tensor]) -> Tensor:
        """Subtract from each row its largest logit, which is returned."""
        peak = self.positive_logits[rows]
        for part in logits:
            peak = torch.maximum(peak, part.amax(1))
        for part in logits:
            part.sub_(peak[:, None])
        return peak

    def _collect(self, rows: slice, exponentials: list[Tensor], scale: Tensor, query_grad: Tensor | None) -> None:
        sources = ((self.shared, self.wanted.negatives), (self.own, self.wanted.user_negatives))
        present = [(source, is_wanted) for source, is_wanted in sources if source is not None]
        for (source, is_wanted), part in zip(present, exponentials, strict=True):
            if query_grad is not None:
                source.add_query_gradient(query_grad, rows, part)
            if is_wanted:
                source.collect_gradient(rows, part, scale)

    def _finish(self, peaks: Tensor, totals: Tensor, query_grad: Tensor | None) -> dict[str, Tensor]:
        losses = totals.log().add_(peaks).sub_(self.positive_logits)
        # Gradient of the sum by the positive logit: weight * (probability - 1).
        pull = self.weights * (torch.exp(self.positive_logits - peaks) / totals - 1)
        fields = {
            "retrieval_sum": torch.dot(self.weights, losses),
            "retrieval_count": self.weights.sum(),
            "retrieval_sq_norm": losses.new_full((), torch.nan),
        }
        if query_grad is not None:
            query_grad.mul_(self.weights / totals).addcmul_(self.positives.unit, pull)
            gradient = self.hidden.gradient(query_grad.div_(self.problem.temperature))
            merge_duplicates(self.problem.retrieval_rows, gradient, len(self.problem.hidden))
            fields["retrieval_row_grad"] = gradient
            fields["retrieval_sq_norm"] = _squared_norm(gradient)
        if self.wanted.positives:
            fields["positives_grad"] = self.positives.gradient(self.query * pull)
        if self.wanted.negatives and self.shared is not None:
            fields["negatives_grad"] = self.shared.gradient()
        if self.wanted.user_negatives and self.own is not None:
            fields["user_negatives_grad"] = self.own.gradient()
        return fields


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
        "ranking_sum": (losses * weights).sum(),
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
    flat = gradient.view(-1)
    return torch.dot(flat, flat)

"""How one call of the Triton path runs: memory layout, splits, and the buffers between its kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .problem import NeedsGrad, Problem
from .schedule import Schedule, block_width

# Without a shift, exponents stay below 2^58 and their sums normal numbers of fp32 and bf16; fp16 ends at 2^16.
_NO_SHIFT_BOUND = 40.0


@dataclass(frozen=True, eq=False)
class Call:
    """One call as the kernels take it.

    Attributes:
        problem: all tensors contiguous.
        needs_grad: which gradients are computed.
        schedule: block sizes of all kernels.
        positive_log_q: ``[P]`` fp32 to base 2, or None.
        negative_log_q: ``[K]`` fp32 to base 2, or None.
        splits: parts into which the columns are split for `stream_kernel`; 0 without columns.
        gradient_splits: parts into which the pairs are split for `negative_gradient_kernel`.
        shifted: whether exponents need a running maximum.
    """

    problem: Problem
    needs_grad: NeedsGrad
    schedule: Schedule
    positive_log_q: Tensor | None
    negative_log_q: Tensor | None
    splits: int
    gradient_splits: int
    shifted: bool

    @property
    def width(self) -> dict[str, int]:
        """The constants of every kernel that holds vectors."""
        return {"D": self.problem.hidden.shape[1], "BLOCK_D": block_width(self.problem.hidden.shape[1])}

    @property
    def scale(self) -> float:
        """Factor from the inner product of two directions to a logit to base 2."""
        return 1 / (self.problem.temperature * math.log(2))

    @property
    def precision(self) -> str:
        """Input precision of `tl.dot`; for half precision there is only one."""
        return self.schedule.precision if self.problem.hidden.dtype == torch.float32 else "ieee"


def plan_call(problem: Problem, needs_grad: NeedsGrad, schedule: Schedule) -> Call:
    """Lay tensors out as the kernels need them, and decide how to split."""
    tensors: dict[str, Any] = {k: v.contiguous() for k, v in problem._asdict().items() if isinstance(v, Tensor)}
    problem = problem._replace(**tensors)
    num_pairs, num_columns = len(problem.positives), len(problem.negatives)
    has_log_q = problem.positive_log_q is not None or problem.negative_log_q is not None
    bounded = problem.normalize and not has_log_q and 1 / problem.temperature <= _NO_SHIFT_BOUND
    return Call(
        problem=problem,
        needs_grad=needs_grad,
        schedule=schedule,
        positive_log_q=_to_base_2(problem.positive_log_q),
        negative_log_q=_to_base_2(problem.negative_log_q),
        splits=_splits(num_columns, schedule.stream.columns, num_pairs, schedule.stream.rows, schedule),
        gradient_splits=_splits(
            num_pairs, schedule.negatives.rows, num_columns, schedule.negatives.columns, schedule
        ),
        shifted=not bounded or problem.hidden.dtype == torch.float16,
    )


def _to_base_2(log_q: Tensor | None) -> Tensor | None:
    return None if log_q is None else log_q.float() / math.log(2)


def _splits(length: int, block: int, other_length: int, other_block: int, schedule: Schedule) -> int:
    """Parts of ``length`` that give the launch enough programs; every part has at least one block."""
    blocks, others = ceil_div(length, block), ceil_div(other_length, other_block)
    if blocks == 0:
        return 0
    target = ceil_div(schedule.programs, max(others, 1))
    # Splits of equal length: rounding up may need fewer of them than were aimed at.
    return ceil_div(blocks, ceil_div(blocks, min(target, blocks)))


def split_length(length: int, block: int, splits: int) -> int:
    """Length of each part, a multiple of ``block``; the last one may be shorter."""
    return ceil_div(ceil_div(length, block), max(splits, 1)) * block


def ceil_div(a: int, b: int) -> int:
    """``a / b`` rounded up."""
    return -(-a // b)


@dataclass(frozen=True, eq=False)
class PairBuffers:
    """What the kernels pass on about the ``P`` query-positive pairs; fp32 but for the queries.

    Exponents are logits to base 2; ``S`` is `Call.splits`.

    Attributes:
        queries: ``[P, D]`` in the dtype of ``hidden``: directions times `Call.scale`.
        split_max: ``[S, P]`` largest exponent of a split's columns.
        split_sum_exp: ``[S, P]`` sum of exponentials relative to ``split_max``.
        weighted_sums: ``[S, P, D]`` sum of the negatives' directions weighted with those exponentials; None where
            hidden rows need no gradient.
        user_exponents: ``[P, M]`` exponents of the user's negatives; None without any.
        losses: ``[P]`` weighted losses.
        row_max: ``[P]`` largest exponent of all, the positive's among them.
        row_scale: ``[P]`` weight over the sum of all exponentials relative to ``row_max``.
        sq_norms: ``[P]`` squared norms of the hidden rows' gradients; None where those are not needed.
    """

    queries: Tensor
    split_max: Tensor
    split_sum_exp: Tensor
    weighted_sums: Tensor | None
    user_exponents: Tensor | None
    losses: Tensor
    row_max: Tensor
    row_scale: Tensor
    sq_norms: Tensor | None


def new_pair_buffers(call: Call) -> PairBuffers:
    """Uninitialised buffers of one call."""
    hidden, user_negatives = call.problem.hidden, call.problem.user_negatives
    num_pairs, width = call.problem.positives.shape

    def new(*shape: int) -> Tensor:
        return hidden.new_empty(shape, dtype=torch.float32)

    return PairBuffers(
        queries=hidden.new_empty(num_pairs, width),
        split_max=new(call.splits, num_pairs),
        split_sum_exp=new(call.splits, num_pairs),
        weighted_sums=new(call.splits, num_pairs, width) if call.needs_grad.hidden else None,
        user_exponents=None if user_negatives is None else new(num_pairs, user_negatives.shape[1]),
        losses=new(num_pairs),
        row_max=new(num_pairs),
        row_scale=new(num_pairs),
        sq_norms=new(num_pairs) if call.needs_grad.hidden else None,
    )

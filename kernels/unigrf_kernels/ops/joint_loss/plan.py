"""How one call of the Triton path runs: layout, splits, what the kernels tell one another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .problem import Problem, Wanted
from .schedule import Schedule, block_width

# Without a shift, exponents stay below 2^58 and their sums normal numbers of fp32 and bf16; fp16 ends at 2^16.
_NO_SHIFT_BOUND = 40.0


@dataclass(frozen=True, eq=False)
class Call:
    """One call as the kernels take it.

    Attributes:
        problem: all tensors contiguous.
        wanted: gradients to compute.
        schedule: tiles.
        positive_log_q: ``[P]`` fp32 to base 2, or None.
        negative_log_q: ``[K]`` fp32 to base 2, or None.
        splits: parts into which the columns are cut for `stream_kernel`; 0 without columns.
        gradient_splits: parts into which the entries are cut for `negative_gradient_kernel`.
        shifted: whether exponents need a running maximum.
    """

    problem: Problem
    wanted: Wanted
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
        """From an inner product to an exponent of 2."""
        return 1 / (self.problem.temperature * math.log(2))

    @property
    def precision(self) -> str:
        """Of products; half precision has one way only."""
        return self.schedule.precision if self.problem.hidden.dtype == torch.float32 else "ieee"


def plan_call(problem: Problem, wanted: Wanted, schedule: Schedule) -> Call:
    """Lay tensors out as the kernels need them, and decide how to split."""
    tensors: dict[str, Any] = {k: v.contiguous() for k, v in problem._asdict().items() if isinstance(v, Tensor)}
    problem = problem._replace(**tensors)
    num_entries, num_columns = len(problem.positives), len(problem.negatives)
    has_log_q = problem.positive_log_q is not None or problem.negative_log_q is not None
    bounded = problem.normalize and not has_log_q and 1 / problem.temperature <= _NO_SHIFT_BOUND
    return Call(
        problem=problem,
        wanted=wanted,
        schedule=schedule,
        positive_log_q=_to_base_2(problem.positive_log_q),
        negative_log_q=_to_base_2(problem.negative_log_q),
        splits=_splits(num_columns, schedule.stream.columns, num_entries, schedule.stream.entries, schedule),
        gradient_splits=_splits(
            num_entries, schedule.negatives.entries, num_columns, schedule.negatives.columns, schedule
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
    wanted = ceil_div(schedule.programs, max(others, 1))
    return ceil_div(blocks, ceil_div(blocks, min(wanted, blocks)))


def split_length(length: int, block: int, splits: int) -> int:
    """Length of each part, a multiple of ``block``; the last one may be shorter."""
    return ceil_div(ceil_div(length, block), max(splits, 1)) * block


def ceil_div(a: int, b: int) -> int:
    """``a / b`` rounded up."""
    return -(-a // b)


@dataclass(frozen=True, eq=False)
class Entries:
    """What the kernels tell one another about the entries, of which there are ``P``, in ``S`` splits."""

    queries: Tensor
    peaks: Tensor
    totals: Tensor
    sums: Tensor | None
    own_exponents: Tensor | None
    losses: Tensor
    highest: Tensor
    shares: Tensor
    squares: Tensor | None


def new_entries(call: Call) -> Entries:
    """Empty buffers: ``queries`` ``[P, D]`` in the dtype of ``hidden``, the others in fp32.

    ``sums`` ``[S, P, D]`` and ``squares`` are there only where hidden rows need a gradient, ``own_exponents``
    ``[P, M]`` only with users' own negatives.
    """
    hidden, own = call.problem.hidden, call.problem.user_negatives
    num_entries, width = call.problem.positives.shape

    def new(*shape: int) -> Tensor:
        return hidden.new_empty(shape, dtype=torch.float32)

    return Entries(
        queries=hidden.new_empty(num_entries, width),
        peaks=new(call.splits, num_entries),
        totals=new(call.splits, num_entries),
        sums=new(call.splits, num_entries, width) if call.wanted.hidden else None,
        own_exponents=None if own is None else new(num_entries, own.shape[1]),
        losses=new(num_entries),
        highest=new(num_entries),
        shares=new(num_entries),
        squares=new(num_entries) if call.wanted.hidden else None,
    )

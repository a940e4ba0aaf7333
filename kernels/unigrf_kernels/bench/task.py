"""What is timed: one shape of one operator, by several implementations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Run = Callable[[Any], Any]
"""Takes the operands' `data`, returns a tensor or a tuple of tensors."""


@dataclass(frozen=True)
class Operands:
    """Inputs of one shape, shared by its implementations.

    Attributes:
        data: what the implementations are called with.
        leaves: tensors whose gradients are computed; implementations must use these very objects.
        upstream: one upstream gradient per output.
    """

    data: Any
    leaves: Sequence[Tensor]
    upstream: Sequence[Tensor]


@dataclass(frozen=True)
class Check:
    """A small problem and its truth.

    Attributes:
        operands: operands of the problem, in the dtype that is timed.
        exact: outputs, then gradients of the leaves, from the reference in float64.
    """

    operands: Operands
    exact: Sequence[Tensor]


@dataclass(frozen=True)
class Implementation:
    """One way to compute the operator: one of this package's, or a baseline.

    Attributes:
        name: name in the table.
        run: computes the outputs from the operands' data.
        bytes_needed: estimate of its peak memory, for shapes where it would not fit.
        refusal: why it cannot be timed here; it is then listed with this reason.
        comparable: its results must agree with the first implementation's before it is timed. False only where
            randomness differs by design.
    """

    name: str
    run: Run | None = None
    bytes_needed: int = 0
    refusal: str = ""
    comparable: bool = True


@dataclass(frozen=True)
class Work:
    """Work of one phase by convention, whatever an implementation really does.

    Attributes:
        flops: floating point operations; 0 where memory alone counts.
        num_bytes: smallest traffic: every operand once.
    """

    flops: int
    num_bytes: int


@dataclass(frozen=True)
class Task:
    """One shape of one operator.

    Attributes:
        operator: name of the operator.
        shape: name of the shape, matched by `--shapes`.
        make: makes the operands; called once, right before timing.
        implementations: the first is the one that others are compared with.
        work: work of each phase to show: of "forward", "backward" and "step" (both).
        bound: the ceiling that the fraction refers to, "gemm" or "copy".
        check: makes a small problem of the same kind with its float64 truth, by which every implementation is
            judged; without it, they are judged by the first one's results on the shape itself.
    """

    operator: str
    shape: str
    make: Callable[[], Operands]
    implementations: Sequence[Implementation]
    work: Mapping[str, Work]
    bound: str
    check: Callable[[], Check] | None = None


@dataclass(frozen=True)
class Result:
    """One line of the table: an implementation in a phase of a task, or the reason why there is none.

    Attributes:
        median_seconds: median over all rounds.
        spread_seconds: 10th and 90th percentile of the rounds.
        tflops: TFLOP/s by convention, 0 where memory alone counts.
        gb_per_second: smallest traffic over time.
        fraction: share of the measured ceiling that the task names.
        host_seconds: median time of the host until it had handed the work to the device; on a CPU the work itself.
        peak_bytes: largest memory beyond the operands, during forward and backward together.
        refusal: why it was not timed; the numbers are then 0.
    """

    operator: str
    shape: str
    implementation: str
    phase: str
    median_seconds: float = 0.0
    spread_seconds: tuple[float, float] = (0.0, 0.0)
    tflops: float = 0.0
    gb_per_second: float = 0.0
    fraction: float = 0.0
    host_seconds: float = 0.0
    peak_bytes: int = 0
    refusal: str = ""

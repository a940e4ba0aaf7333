"""What is timed: one shape of one operator, by several contenders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Run = Callable[[Any], Any]
"""Takes the operands' `data`, returns a tensor or a tuple of tensors."""


@dataclass(frozen=True)
class Operands:
    """Inputs of one shape, shared by its contenders.

    Attributes:
        data: what the contenders are called with.
        leaves: the tensors whose gradients are wanted; contenders use these very objects.
        upstream: one gradient per output.
    """

    data: Any
    leaves: Sequence[Tensor]
    upstream: Sequence[Tensor]


@dataclass(frozen=True)
class Contender:
    """One way to compute the operator.

    Attributes:
        name: in the table.
        run: called with the operands' data.
        bytes_needed: estimate of its peak memory, for shapes where it would not fit.
        refusal: why it cannot be timed here; it is then listed with this reason.
        comparable: its results must agree with the first contender's before it is timed. False only where
            randomness differs by design.
    """

    name: str
    run: Run | None = None
    bytes_needed: int = 0
    refusal: str = ""
    comparable: bool = True


@dataclass(frozen=True)
class Work:
    """Work of one phase by convention, whatever a contender really does.

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
        operator: its name.
        shape: name of the shape, matched by `--shapes`.
        make: makes the operands; called once, right before timing.
        contenders: the first is the one that others are compared with.
        work: by phase; of "forward", "backward" and "step" (both) those that are shown.
        bound: the ceiling that the fraction refers to, "gemm" or "copy".
    """

    operator: str
    shape: str
    make: Callable[[], Operands]
    contenders: Sequence[Contender]
    work: Mapping[str, Work]
    bound: str


@dataclass(frozen=True)
class Result:
    """One line of the table: a contender in a phase of a task, or the reason why there is none.

    Attributes:
        median_seconds: of all rounds.
        spread_seconds: 10th and 90th percentile of the rounds.
        tflops: by convention, 0 where memory alone counts.
        gb_per_second: smallest traffic over time.
        fraction: of the measured ceiling named by the task.
        peak_bytes: largest memory beyond the operands, during forward and backward together.
        refusal: why it was not timed; the numbers are then 0.
    """

    operator: str
    shape: str
    contender: str
    phase: str
    median_seconds: float = 0.0
    spread_seconds: tuple[float, float] = (0.0, 0.0)
    tflops: float = 0.0
    gb_per_second: float = 0.0
    fraction: float = 0.0
    peak_bytes: int = 0
    refusal: str = ""

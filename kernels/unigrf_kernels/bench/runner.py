"""Times the implementations of a task in turns, after their results have been compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from .ceilings import Ceilings
from .task import Implementation, Operands, Result, Task
from .timing import Stopwatch, free_bytes, peak_bytes, stopwatch

MIN_ROUNDS, MAX_ROUNDS = 3, 100
_MEMORY_SHARE = 0.8
# Relative root-mean-square difference of two ways to compute the same in one dtype; a wrong one is far beyond.
_AGREEMENT = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def run_task(task: Task, ceilings: Ceilings, device: torch.device, seconds: float) -> Iterator[Result]:
    """Results of all implementations; those that cannot be timed come with their reason.

    Args:
        task: what to time.
        ceilings: best speeds of the device, for the fractions.
        device: device that the operands are on.
        seconds: approximate time to spend on each implementation.
    """
    operands = task.make()
    refusals: dict[str, str] = {}
    peaks: dict[str, int] = {}
    expected: list[Tensor] | None = None
    for implementation in task.implementations:
        try:
            refusals[implementation.name] = _refusal(implementation, device)
            if refusals[implementation.name]:
                continue
            actual = _results(implementation, operands)
            if expected is None:
                expected = actual
            elif implementation.comparable:
                refusals[implementation.name] = _disagreement(actual, expected)
            peaks[implementation.name] = peak_bytes(lambda c=implementation: _results(c, operands), device)  # type: ignore[misc]
        except Exception as error:  # whatever stops a baseline is shown in its line of the table
            refusals[implementation.name] = _reason(error)
    ready = [implementation for implementation in task.implementations if not refusals[implementation.name]]
    watches = _time_in_turns(ready, operands, device, seconds)
    for implementation in task.implementations:
        reason = refusals[implementation.name]
        if reason:
            yield Result(task.operator, task.shape, implementation.name, "-", refusal=reason)
            continue
        forward, backward = watches[implementation.name].seconds()
        times = {
            "forward": forward,
            "backward": backward,
            "step": [first + second for first, second in zip(forward, backward, strict=True)],
        }
        for phase in task.work:
            yield _result(task, implementation.name, phase, times[phase], ceilings, peaks[implementation.name])


def _results(implementation: Implementation, operands: Operands) -> list[Tensor]:
    """Outputs and gradients."""
    outputs = _call(implementation, operands)
    gradients = torch.autograd.grad(outputs, list(operands.leaves), list(operands.upstream))
    return [*(output.detach() for output in outputs), *gradients]


def _call(implementation: Implementation, operands: Operands) -> list[Tensor]:
    assert implementation.run is not None
    outputs = implementation.run(operands.data)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _time_in_turns(
    implementations: list[Implementation], operands: Operands, device: torch.device, seconds: float
) -> dict[str, Stopwatch]:
    # In turns, so that another process or a clock that slows down affects all of them alike.
    watches: dict[str, Stopwatch] = {implementation.name: stopwatch(device) for implementation in implementations}
    begin = time.perf_counter()
    for round_number in range(MAX_ROUNDS):
        if round_number >= MIN_ROUNDS and time.perf_counter() - begin > seconds * len(implementations):
            break
        for implementation in implementations:
            outputs: list[Tensor] = []
            watches[implementation.name].run(
                [
                    lambda c=implementation, kept=outputs: kept.extend(_call(c, operands)),  # type: ignore[misc]
                    lambda kept=outputs: _differentiate(kept, operands),  # type: ignore[misc]
                ]
            )
    return watches


def _differentiate(outputs: list[Tensor], operands: Operands) -> None:
    torch.autograd.grad(outputs, list(operands.leaves), list(operands.upstream))


def _result(
    task: Task, implementation: str, phase: str, times: list[float], ceilings: Ceilings, peak: int
) -> Result:
    work, median = task.work[phase], statistics.median(times)
    tflops, gb_per_second = work.flops / median / 1e12, work.num_bytes / median / 1e9
    by_gemm = task.bound == "gemm"
    return Result(
        operator=task.operator,
        shape=task.shape,
        implementation=implementation,
        phase=phase,
        median_seconds=median,
        spread_seconds=_percentiles(times),
        tflops=tflops,
        gb_per_second=gb_per_second,
        fraction=tflops / ceilings.tflops if by_gemm else gb_per_second / ceilings.gb_per_second,
        peak_bytes=peak,
    )


def _percentiles(times: list[float]) -> tuple[float, float]:
    ordered = sorted(times)
    return ordered[int(0.1 * (len(ordered) - 1))], ordered[-1 - int(0.1 * (len(ordered) - 1))]


def _refusal(implementation: Implementation, device: torch.device) -> str:
    if implementation.refusal:
        return implementation.refusal
    room = int(_MEMORY_SHARE * free_bytes(device)) if implementation.bytes_needed else 0
    if implementation.bytes_needed > room:
        return f"needs about {implementation.bytes_needed / 2**30:.1f} GiB, {room / 2**30:.1f} GiB may be used"
    return ""


def _disagreement(actual: list[Tensor], expected: list[Tensor]) -> str:
    """Why the results are not the same, or nothing."""
    for number, (one, other) in enumerate(zip(actual, expected, strict=True)):
        difference = (one.float() - other.float()).square().mean().sqrt()
        scale = other.float().square().mean().sqrt().clamp(min=1e-12)
        relative = (difference / scale).item()
        if not relative <= _AGREEMENT.get(other.dtype, 1e-3):
            return f"result {number} differs by {relative:.1e}"
    return ""


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''}"

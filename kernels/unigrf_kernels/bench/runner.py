"""Times the contenders of a task in turns, after their results have been compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from .ceilings import Ceilings
from .task import Contender, Operands, Result, Task
from .timing import Stopwatch, free_bytes, peak_bytes, stopwatch

MIN_ROUNDS, MAX_ROUNDS = 3, 100
_MEMORY_SHARE = 0.8
# Relative root-mean-square difference of two ways to compute the same in one dtype; a wrong one is far beyond.
_AGREEMENT = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def run_task(task: Task, ceilings: Ceilings, device: torch.device, seconds: float) -> Iterator[Result]:
    """Results of all contenders; those that cannot be timed come with their reason.

    Args:
        task: what to time.
        ceilings: for the fractions.
        device: where.
        seconds: time to spend on each contender's rounds, about.
    """
    operands = task.make()
    refusals: dict[str, str] = {}
    peaks: dict[str, int] = {}
    expected: list[Tensor] | None = None
    for contender in task.contenders:
        try:
            refusals[contender.name] = _refusal(contender, device)
            if refusals[contender.name]:
                continue
            actual = _results(contender, operands)
            if expected is None:
                expected = actual
            elif contender.comparable:
                refusals[contender.name] = _disagreement(actual, expected)
            peaks[contender.name] = peak_bytes(lambda c=contender: _results(c, operands), device)  # type: ignore[misc]
        except Exception as error:  # whatever a competitor trips over is its line in the table
            refusals[contender.name] = _reason(error)
    ready = [contender for contender in task.contenders if not refusals[contender.name]]
    watches = _time_in_turns(ready, operands, device, seconds)
    for contender in task.contenders:
        reason = refusals[contender.name]
        if reason:
            yield Result(task.operator, task.shape, contender.name, "-", refusal=reason)
            continue
        forward, backward = watches[contender.name].seconds()
        times = {
            "forward": forward,
            "backward": backward,
            "step": [first + second for first, second in zip(forward, backward, strict=True)],
        }
        for phase in task.work:
            yield _result(task, contender.name, phase, times[phase], ceilings, peaks[contender.name])


def _results(contender: Contender, operands: Operands) -> list[Tensor]:
    """Outputs and gradients."""
    outputs = _call(contender, operands)
    gradients = torch.autograd.grad(outputs, list(operands.leaves), list(operands.upstream))
    return [*(output.detach() for output in outputs), *gradients]


def _call(contender: Contender, operands: Operands) -> list[Tensor]:
    assert contender.run is not None
    outputs = contender.run(operands.data)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _time_in_turns(
    contenders: list[Contender], operands: Operands, device: torch.device, seconds: float
) -> dict[str, Stopwatch]:
    # In turns, so that a neighbour on the machine or a clock that slows down meets all of them alike.
    watches: dict[str, Stopwatch] = {contender.name: stopwatch(device) for contender in contenders}
    begin = time.perf_counter()
    for round_number in range(MAX_ROUNDS):
        if round_number >= MIN_ROUNDS and time.perf_counter() - begin > seconds * len(contenders):
            break
        for contender in contenders:
            outputs: list[Tensor] = []
            watches[contender.name].run(
                [
                    lambda c=contender, kept=outputs: kept.extend(_call(c, operands)),  # type: ignore[misc]
                    lambda kept=outputs: _differentiate(kept, operands),  # type: ignore[misc]
                ]
            )
    return watches


def _differentiate(outputs: list[Tensor], operands: Operands) -> None:
    torch.autograd.grad(outputs, list(operands.leaves), list(operands.upstream))


def _result(task: Task, contender: str, phase: str, times: list[float], ceilings: Ceilings, peak: int) -> Result:
    work, median = task.work[phase], statistics.median(times)
    tflops, gb_per_second = work.flops / median / 1e12, work.num_bytes / median / 1e9
    by_gemm = task.bound == "gemm"
    return Result(
        operator=task.operator,
        shape=task.shape,
        contender=contender,
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


def _refusal(contender: Contender, device: torch.device) -> str:
    if contender.refusal:
        return contender.refusal
    room = int(_MEMORY_SHARE * free_bytes(device)) if contender.bytes_needed else 0
    if contender.bytes_needed > room:
        return f"needs about {contender.bytes_needed / 2**30:.1f} GiB, {room / 2**30:.1f} GiB may be used"
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

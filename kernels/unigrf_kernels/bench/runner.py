"""Times the implementations of a task in turns, after their results have been compared."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence

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
    # Beyond its limit of shapes Dynamo gives up on a function and runs it eagerly, without a word.
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    try:
        operands = task.make()
        judge = Judge(task)
    except Exception as error:  # out of memory, most likely: the next task may do
        for implementation in task.implementations:
            yield Result(task.operator, task.shape, implementation.name, "-", refusal=_reason(error))
        return
    refusals: dict[str, str] = {}
    peaks: dict[str, int] = {}
    for implementation in task.implementations:
        try:
            refusals[implementation.name] = _refusal(implementation, device)
            if refusals[implementation.name]:
                continue
            refusals[implementation.name] = judge.verdict(implementation, operands)
            peaks[implementation.name] = peak_bytes(lambda c=implementation: _results(c, operands), device)  # type: ignore[misc]
        except Exception as error:  # whatever stops a baseline is shown in its line of the table
            refusals[implementation.name] = _reason(error)
    ready = [implementation for implementation in task.implementations if not refusals[implementation.name]]
    watches = _time_in_turns(ready, operands, device, seconds, refusals)
    for implementation in task.implementations:
        reason = refusals[implementation.name]
        if reason:
            yield Result(task.operator, task.shape, implementation.name, "-", refusal=reason)
            continue
        times = _by_phase(*watches[implementation.name].seconds())
        host = _by_phase(*watches[implementation.name].host_seconds())
        for phase in task.work:
            peak = peaks[implementation.name]
            yield _result(task, implementation.name, phase, times[phase], host[phase], ceilings, peak)


def _by_phase(forward: list[float], backward: list[float]) -> dict[str, list[float]]:
    step = [first + second for first, second in zip(forward, backward, strict=True)]
    return {"forward": forward, "backward": backward, "step": step}


class Judge:
    """Says whether an implementation computes what it should, before it is timed."""

    def __init__(self, task: Task) -> None:
        self._check = None if task.check is None else task.check()
        self._expected: list[Tensor] | None = None

    def verdict(self, implementation: Implementation, operands: Operands) -> str:
        """Why its results are wrong, or nothing."""
        if self._check is not None:
            actual = _results(implementation, self._check.operands)
            return _disagreement(actual, self._check.exact) if implementation.comparable else ""
        actual = _results(implementation, operands)
        if self._expected is None:
            self._expected = actual
            return ""
        return _disagreement(actual, self._expected) if implementation.comparable else ""


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
    implementations: list[Implementation],
    operands: Operands,
    device: torch.device,
    seconds: float,
    refusals: dict[str, str],
) -> dict[str, Stopwatch]:
    """A stopwatch for each; one that fails meanwhile is timed no longer and named in ``refusals``."""
    # In turns, so that another process or a clock that slows down affects all of them alike.
    watches: dict[str, Stopwatch] = {implementation.name: stopwatch(device) for implementation in implementations}
    begin = time.perf_counter()
    for round_number in range(MAX_ROUNDS):
        if round_number >= MIN_ROUNDS and time.perf_counter() - begin > seconds * len(implementations):
            break
        for implementation in implementations:
            if refusals[implementation.name]:
                continue
            outputs: list[Tensor] = []
            try:
                watches[implementation.name].run(
                    [
                        lambda c=implementation, kept=outputs: kept.extend(_call(c, operands)),  # type: ignore[misc]
                        lambda kept=outputs: _differentiate(kept, operands),  # type: ignore[misc]
                    ]
                )
            except Exception as error:
                refusals[implementation.name] = _reason(error)
    return watches


def _differentiate(outputs: list[Tensor], operands: Operands) -> None:
    torch.autograd.grad(outputs, list(operands.leaves), list(operands.upstream))


def _result(
    task: Task,
    implementation: str,
    phase: str,
    times: list[float],
    host_times: list[float],
    ceilings: Ceilings,
    peak: int,
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
        host_seconds=statistics.median(host_times),
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


def _disagreement(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> str:
    """Why the results are not the same, or nothing."""
    for number, (one, other) in enumerate(zip(actual, expected, strict=True)):
        difference = (one.double() - other.double()).square().mean().sqrt()
        scale = other.double().square().mean().sqrt().clamp(min=1e-12)
        relative = (difference / scale).item()
        if not relative <= _AGREEMENT.get(one.dtype, 1e-3):
            return f"result {number} differs by {relative:.1e}"
    return ""


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''}"

"""Times the CPU path of `jagged_attention` against padded eager PyTorch.

    python -m unigrf_kernels.bench.cases.jagged_attention_cpu --threads 1

Implementations take turns, so that other processes disturb all of them alike; with one thread the time is that
thread's processor time. Every result is first compared with the baseline's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from unigrf_kernels.bench.cases.jagged_attention_inputs import BenchCase, BenchInputs, cpu_cases, padded_eager
from unigrf_kernels.ops.jagged_attention.api import jagged_attention


def blocked(inputs: BenchInputs) -> Tensor:
    """One layer with the plan of its batch, as in a model whose other layers have used it before."""
    return jagged_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        inputs.plan.offsets,
        plan=inputs.plan,
        implementation="torch",
        **inputs.options,
    )


def time_case(case: BenchCase, rounds: int, clock: Callable[[], float]) -> dict[str, tuple[float, float]]:
    """Median seconds of forward and of backward for each implementation."""
    inputs = case.inputs(torch.float32)
    runs = {"padded eager": padded_eager, "blocked": blocked}
    torch.testing.assert_close(blocked(inputs), padded_eager(inputs), rtol=1e-3, atol=1e-3)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            out = run(inputs)
            middle = clock()
            torch.autograd.grad(out, inputs.leaves, inputs.grad_out)
            times[name].append((middle - start, clock() - middle))
    return {
        name: (statistics.median(t for t, _ in pairs), statistics.median(t for _, t in pairs))
        for name, pairs in times.items()
    }


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--rounds", type=int, default=5, help="runs of which the median is taken")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    print(f"{'case':28s} {'tokens':>7s}   {'padded eager, ms':>19s}   {'blocked, ms':>19s}   faster")
    for case in cpu_cases():
        if arguments.case not in case.name:
            continue
        times = time_case(case, arguments.rounds, clock)
        cells = [f"{1e3 * forward:8.1f} + {1e3 * backward:8.1f}" for forward, backward in times.values()]
        ratio = sum(times["padded eager"]) / sum(times["blocked"])
        print(
            f"{case.name:28s} {sum(case.lengths):7d}   {cells[0]:>19s}   {cells[1]:>19s}   {ratio:.1f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()

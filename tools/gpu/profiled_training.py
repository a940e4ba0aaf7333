"""Steps of one configuration on one rank: their time, their share of the device's best, and the profiler's top."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

_PROFILED_STEPS = 3
_TOP = 25
# Runtime calls in which the host waits; on a CPU, where there are none, reading a number off a tensor.
_WAITS = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"}
_READS = {"aten::_local_scalar_dense"}


def main() -> None:
    """Measure, profile, write."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu.profiled_training", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    report: dict[str, Any] = {}
    # Times first, and kept: a trace may be too long to be read in time.
    for found in measure(options.config, options.set, options.steps):
        report |= found
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(report["top"])


def measure(config_file: Path, overrides: list[str], steps: int) -> Iterator[dict[str, Any]]:
    """What timed steps show, then what profiled ones add."""
    from unigrf_dist.config import load_config
    from unigrf_dist.model.backbone import backbone_flops
    from unigrf_dist.phases import Phases
    from unigrf_dist.programs.step_times import Subject
    from unigrf_dist.programs.step_times import measure as run_steps
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.build import build_parts
    from unigrf_kernels.bench.ceilings import measure_ceilings

    config = load_config(config_file, overrides)
    runtime = start(config.train.timeout_seconds)
    subject = Subject(build_parts(config, runtime, Phases()))
    lengths: list[np.ndarray] = []
    subject.batches = _noting(subject.batches, lengths)
    run_steps([subject], steps)
    tokens = 2.0 * np.concatenate(lengths[-steps:])
    flops = backbone_flops(config.model, tokens) / steps
    metrics = subject.metrics()
    ceiling = measure_ceilings(runtime.device, torch.bfloat16 if _is_bf16(config) else torch.float32)
    yield {
        **metrics,
        "overrides": overrides,
        "backbone_flops_per_step": flops,
        "ceiling_tflops": ceiling.tflops,
        "mfu": flops / (metrics["milliseconds_per_step"] / 1e3) / 1e12 / ceiling.tflops,
    }
    first = len(lengths)
    with profile(activities=_activities()) as trace:
        for number in range(first, first + _PROFILED_STEPS):
            subject.run(number)
    averages = trace.key_averages()
    on_cuda = runtime.device.type == "cuda"
    names = _WAITS if on_cuda else _READS
    order = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
    yield {
        "host_waits_per_step": sum(event.count for event in averages if event.key in names) / _PROFILED_STEPS,
        "host_waits_counted": sorted(names),
        "top": averages.table(sort_by=order, row_limit=_TOP, max_name_column_width=60),
    }


def _noting(batches: Any, lengths: list[np.ndarray]) -> Iterator[Any]:
    for batch in batches:
        lengths.append(batch.lengths.cpu().numpy())
        yield batch


def _is_bf16(config: Any) -> bool:
    return bool((config.deepspeed.get("bf16") or {}).get("enabled"))


def _activities() -> list[ProfilerActivity]:
    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *cuda]


if __name__ == "__main__":
    main()

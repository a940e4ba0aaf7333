"""Clocks and memory of one device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch.profiler import ProfilerActivity, profile

_FLUSH_BYTES = 256 * 2**20


class Stopwatch(Protocol):
    """Times stages that follow one another."""

    def run(self, stages: Sequence[Callable[[], None]]) -> None:
        """Run the stages once and keep their times."""

    def seconds(self) -> list[list[float]]:
        """Times of every run so far, one list per stage; waits for the device."""

    def host_seconds(self) -> list[list[float]]:
        """Times until the host had handed each stage to the device, one list per stage."""


class CpuStopwatch:
    """Wall-clock time; with one thread that thread's processor time, which other processes do not add to."""

    def __init__(self) -> None:
        self._clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        self._times: list[list[float]] = []

    def run(self, stages: Sequence[Callable[[], None]]) -> None:
        marks = [self._clock()]
        for stage in stages:
            stage()
            marks.append(self._clock())
        self._times.append([end - begin for begin, end in pairwise(marks)])

    def seconds(self) -> list[list[float]]:
        return [list(times) for times in zip(*self._times, strict=True)]

    def host_seconds(self) -> list[list[float]]:
        return self.seconds()


class CudaStopwatch:
    """CUDA events; before each run the second-level cache is overwritten."""

    def __init__(self) -> None:
        self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")
        self._events: list[list[torch.cuda.Event]] = []
        self._host: list[list[float]] = []

    def run(self, stages: Sequence[Callable[[], None]]) -> None:
        self._flush.zero_()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(stages) + 1)]
        marks = [time.perf_counter()]
        events[0].record()
        for stage, event in zip(stages, events[1:], strict=True):
            stage()
            event.record()
            marks.append(time.perf_counter())
        self._events.append(events)
        self._host.append([end - begin for begin, end in pairwise(marks)])

    def seconds(self) -> list[list[float]]:
        torch.cuda.synchronize()
        runs = [[begin.elapsed_time(end) / 1e3 for begin, end in pairwise(events)] for events in self._events]
        return [list(times) for times in zip(*runs, strict=True)]

    def host_seconds(self) -> list[list[float]]:
        return [list(times) for times in zip(*self._host, strict=True)]


def stopwatch(device: torch.device) -> Stopwatch:
    """A new stopwatch for `device`."""
    return CudaStopwatch() if device.type == "cuda" else CpuStopwatch()


def peak_bytes(action: Callable[[], Any], device: torch.device) -> int:
    """Largest memory that `action` holds beyond what is held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        action()
    records = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(records, key=lambda record: record.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def free_bytes(device: torch.device) -> int:
    """Memory that is free on `device` now."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

"""What counts as growth in a long run."""

from __future__ import annotations

from unigrf_dist.chaos.soak import Sample, grows

MIB = 1 << 20


def steady(step: int, *, memory: int = 500 * MIB, files: int = 40, threads: int = 12) -> Sample:
    return Sample(step, memory, files, threads)


def test_a_first_quarter_that_fills_caches_is_no_growth() -> None:
    samples = [steady(step, memory=(300 + min(step, 250)) * MIB) for step in range(0, 1000, 10)]
    assert grows(samples, steps=1000) == []


def test_memory_files_and_threads_that_grow_are_named() -> None:
    leaking = [steady(step, memory=(500 + step // 10) * MIB) for step in range(0, 1000, 10)]
    assert grows(leaking, steps=1000) == ["memory"]
    opening = [steady(step, files=40 + step // 300, threads=12 + step // 500) for step in range(0, 1000, 10)]
    assert grows(opening, steps=1000) == ["files", "threads"]


def test_a_save_that_holds_files_for_a_moment_is_no_growth() -> None:
    samples = [steady(step, files=45 if step % 100 == 0 else 40) for step in range(0, 1000, 10)]
    assert grows(samples, steps=1000) == []

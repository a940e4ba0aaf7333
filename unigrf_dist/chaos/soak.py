"""A long run that nothing happens to, watched for memory, open files and threads that grow."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import NamedTuple

import psutil

from unigrf_dist.chaos.training import BATCH_USERS, NUM_USERS, Training, last_words
from unigrf_dist.chaos.workshop import Outcome, Workshop

_EVERY_SECONDS = 2.0
# Of the memory: what allocators wobble by.
_GROWTH = 0.02


class Sample(NamedTuple):
    """What the ranks held at one time, summed over them.

    Attributes:
        step: steps that the log told of.
        memory: resident bytes.
        files: open file descriptors.
        threads: threads.
    """

    step: int
    memory: int
    files: int
    threads: int


def soak_run(work: Workshop, *, steps: int) -> tuple[Outcome, list[Sample]]:
    """Train ``steps`` steps on two ranks, with saves and validations; what the ranks held meanwhile."""
    epochs = -(-steps // -(-NUM_USERS // BATCH_USERS))
    values = {
        "train.epochs": epochs,
        "train.keep_checkpoints": 3,
        "train.checkpoint_every": "100 steps",
        "train.selection.every": "500 steps",
        "train.log_every_steps": 10,
    }
    options = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    began = time.monotonic()
    training = work.train(work.new_run(), 2, *options)
    samples = []
    while training.process.poll() is None:
        time.sleep(_EVERY_SECONDS)
        if (sample := _sample(training)) is not None and sample.step:
            samples.append(sample)
    seconds, status = time.monotonic() - began, training.process.returncode
    last = training.steps
    if status != 0 or last < steps:
        told = f"status {status} at step {last}: {last_words(training)}"
        return Outcome("soak", False, seconds, told), samples
    first, end = _quarter(samples, 1, last), _quarter(samples, 3, last)
    told = (
        f"{last:,} steps; second to last quarter: {first.memory / 2**20:.0f} to {end.memory / 2**20:.0f} MiB, "
        f"{first.files} to {end.files} files, {first.threads} to {end.threads} threads"
    )
    return Outcome("soak", not grows(samples, steps=last), seconds, told), samples


def grows(samples: list[Sample], *, steps: int) -> list[str]:
    """Names of what a run of ``steps`` steps holds more of in its last quarter than in its second.

    In the first quarter allocators and caches settle.
    """
    first, end = _quarter(samples, 1, steps), _quarter(samples, 3, steps)
    allowed = first._replace(memory=int(first.memory * (1 + _GROWTH)))
    return [name for name in ("memory", "files", "threads") if getattr(end, name) > getattr(allowed, name)]


def _sample(training: Training) -> Sample | None:
    """None where a rank is about to start or to end."""
    memory = files = threads = 0
    ranks = training.ranks()
    with suppress(psutil.Error):
        for rank in ranks:
            memory += rank.memory_info().rss
            files += rank.num_fds()
            threads += rank.num_threads()
        return Sample(training.steps, memory, files, threads) if len(ranks) == 2 else None
    return None


def _quarter(samples: list[Sample], number: int, steps: int) -> Sample:
    """Mean memory of a quarter of the run; the median of files and threads, which a save holds for a moment."""
    within = [sample for sample in samples if number * steps <= 4 * sample.step < (number + 1) * steps + 4]
    middle = len(within) // 2
    return Sample(
        within[middle].step,
        sum(sample.memory for sample in within) // len(within),
        sorted(sample.files for sample in within)[middle],
        sorted(sample.threads for sample in within)[middle],
    )

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
    # Allocators settle in the first quarter.
    first = _mean([sample for sample in samples if 1 / 4 <= sample.step / last < 2 / 4])
    end = _mean([sample for sample in samples if sample.step / last >= 3 / 4])
    flat = end.memory <= first.memory * (1 + _GROWTH) and end.files <= first.files and end.threads <= first.threads
    told = (
        f"{last:,} steps; second to last quarter: {first.memory / 2**20:.0f} to {end.memory / 2**20:.0f} MiB, "
        f"{first.files} to {end.files} files, {first.threads} to {end.threads} threads"
    )
    return Outcome("soak", flat, seconds, told), samples


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


def _mean(samples: list[Sample]) -> Sample:
    """Mean memory; the median of files and threads, of which a save or a validation holds some for a moment."""
    middle = len(samples) // 2
    return Sample(
        samples[middle].step,
        sum(sample.memory for sample in samples) // len(samples),
        sorted(sample.files for sample in samples)[middle],
        sorted(sample.threads for sample in samples)[middle],
    )

"""Whether a shard is what was written, and holds what the manifest allows, before any of it reaches a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.data.manifest import FileRecord, Manifest, sha256
from unigrf_dist.data.sequences import Sequences

# Beyond these the difference of two times may not fit into 64 bits.
_LATEST_SECONDS = 2**62

# Files whose hash was compared in this process, with size and time of change: the next epoch does not read them
# twice.
_verified: set[tuple[str, int, int]] = set()


def verify_file(file: Path, record: FileRecord) -> None:
    """Compare a file's SHA-256 with the manifest's, once per process and state of the file.

    Raises:
        ValueError: it differs.
        OSError: the file can't be read.
    """
    status = file.stat()
    state = (str(file), status.st_size, status.st_mtime_ns)
    if state in _verified:
        return
    if status.st_size != record.num_bytes:
        raise ValueError(f"{status.st_size} bytes, but the manifest says {record.num_bytes}")
    if sha256(file) != record.sha256:
        raise ValueError("its SHA-256 is not the manifest's")
    _verified.add(state)


def forget_verified() -> None:
    """Compare again what was compared in this process, for a check of the comparison itself."""
    _verified.clear()


def check_content(sequences: Sequences, manifest: Manifest) -> None:
    """Refuse item ids, behaviours and times that no preparation writes.

    Raises:
        ValueError: the first such event, with its user.
    """
    for name, values, limit in (
        ("item id", sequences.item_ids, manifest.num_items),
        ("behaviour", sequences.behaviours, len(manifest.behaviours)),
    ):
        # As unsigned numbers negative ones are the largest: one comparison for both ends.
        wrong = values.view(f"u{values.itemsize}") >= limit
        if wrong.any():
            raise _problem(sequences, wrong, f"{name} {values[wrong][0]}, but there are {limit}")
    times = sequences.timestamps
    wrong = (times > _LATEST_SECONDS) | (times < -_LATEST_SECONDS)
    if wrong.any():
        raise _problem(sequences, wrong, f"time {times[wrong][0]} is out of range")
    earlier = np.concatenate([[False], times[1:] < times[:-1]])
    earlier[sequences.offsets[:-1][sequences.lengths > 0]] = False
    if earlier.any():
        raise _problem(sequences, earlier, "an event is earlier than the one before it")


def _problem(sequences: Sequences, wrong: NDArray[np.bool_], problem: str) -> ValueError:
    event = int(np.argmax(wrong))
    user = int(np.searchsorted(sequences.offsets, event, side="right")) - 1
    return ValueError(f"user {sequences.user_ids[user]}: {problem}")

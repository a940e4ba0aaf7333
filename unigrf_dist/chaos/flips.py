"""Bits that flip in a checkpoint or a data set: told when they are read, or of no consequence."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from unigrf_dist.data import integrity, open_dataset
from unigrf_dist.data.dataset import RowGroupReader, RowGroups
from unigrf_dist.data.manifest import sha256
from unigrf_dist.errors import UserError
from unigrf_dist.train.checkpoints.checkpoints import read_checked

Reader = Callable[[Path], str]
"""Reads all of a folder that training reads, and fingerprints it; raises UserError where it is damaged."""


def flip_bits(original: Path, scratch: Path, read: Reader, *, flips: int, seed: int) -> tuple[int, list[str]]:
    """Flip one bit in a copy of ``original``, ``flips`` times, and read it each time.

    Args:
        original: folder of a checkpoint or a data set.
        scratch: folder for the copy; made and removed.
        read: reads what a run reads.
        flips: number of trials.
        seed: seed of files and bits.

    Returns:
        How many were detected or changed nothing that is read, and where those were that were neither.
    """
    draws, undetected, expected = random.Random(seed), [], read(original)
    for _ in range(flips):
        shutil.rmtree(scratch, ignore_errors=True)
        copy = scratch / original.name
        shutil.copytree(original, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        # By size, as bits flip; but small files are hit as well.
        file = draws.choices(files, weights=[path.stat().st_size + 1000 for path in files])[0]
        body, bit = bytearray(file.read_bytes()), 0
        if body:
            bit = draws.randrange(8 * len(body))
            body[bit // 8] ^= 1 << bit % 8
            file.write_bytes(body)
        try:
            if read(copy) == expected:
                continue
        except UserError:
            continue
        undetected.append(f"{file.relative_to(copy)}, bit {bit}")
    shutil.rmtree(scratch, ignore_errors=True)
    return flips - len(undetected), undetected


def read_checkpoint(folder: Path) -> str:
    """Verify all of a checkpoint, as a load does."""
    return str(read_checked(folder)) + repr(sorted(sha256(file) for file in folder.glob("*.safetensors")))


def read_data(folder: Path) -> str:
    """Read all of a data set that training reads."""
    integrity.forget_verified()
    dataset = open_dataset(folder)
    digest = hashlib.sha256(dataset.training_counts().numpy().tobytes())
    digest.update(dataset.catalogue_fingerprint().encode())
    digest.update(repr(dataset.manifest.behaviours).encode())
    reader, groups = RowGroupReader(dataset), RowGroups.of(dataset.manifest)
    for shard, group in zip(groups.shard.tolist(), groups.group.tolist(), strict=True):
        sequences = reader.read(shard, group)
        for values in (sequences.user_ids, sequences.item_ids, sequences.behaviours, sequences.timestamps):
            digest.update(values.tobytes())
    return digest.hexdigest()

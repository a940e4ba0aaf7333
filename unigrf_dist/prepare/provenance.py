"""What a data set was made of: a record of every raw file for the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from unigrf_dist.data.manifest import RawFileRecord, sha256
from unigrf_dist.errors import printable
from unigrf_dist.prepare.source import Source

_WHOLE_BYTES = 64 << 20
_PIECES, _PIECE_BYTES = 64, 1 << 20


def raw_file_records(sources: Sequence[tuple[Path, Source]]) -> list[RawFileRecord]:
    """Records of all files of events and features, in the order in which they are read.

    Args:
        sources: path that the user named, and what was found there.
    """
    records = []
    for raw, source in sources:
        features = (source.item_features, source.user_features)
        for file in (*source.files, *(table.file for table in features if table is not None)):
            below = raw in file.parents
            record = _record(file, str(file.relative_to(raw)) if below else file.name)
            snapshot = source.snapshot if file in source.files else None
            records.append(record.model_copy(update={"snapshot": snapshot}))
    return records


def _record(file: Path, name: str) -> RawFileRecord:
    size = file.stat().st_size
    sampled = size > _WHOLE_BYTES
    digest = _sampled_sha256(file, size) if sampled else sha256(file)
    return RawFileRecord(file=printable(name), num_bytes=size, sha256=digest, sampled=sampled)


def _sampled_sha256(file: Path, size: int) -> str:
    """SHA-256 of the size, in decimal digits, and of evenly spread pieces, the first and last bytes among them."""
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as content:
        for piece in range(_PIECES):
            content.seek(piece * (size - _PIECE_BYTES) // (_PIECES - 1))
            digest.update(content.read(_PIECE_BYTES))
    return digest.hexdigest()

"""The plan of a preparation: its files, its options, and the parts into which its work is cut."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import Source

OnBadRow = Literal["error", "skip"]

# Events of a bucket that are sorted at once.
_EVENTS_PER_BUCKET = 1_500_000
# Each is an open file while raw files are read.
_MAX_BUCKETS = 512
# Bytes of a row of text, which has at least two ids, a time and their separators; compressed, a third of it.
_BYTES_PER_ROW = 24
_BYTES_PER_COMPRESSED_ROW = 8


@dataclass(frozen=True)
class Thinning:
    """Which events are left out.

    Attributes:
        drop_duplicates: keep only the first of events that are alike in user, item, time and behaviour.
        min_events, min_item_events: users and items with fewer events are dropped; both counts are taken once,
            before anything is dropped.
    """

    drop_duplicates: bool = False
    min_events: int = 1
    min_item_events: int = 1


@dataclass(frozen=True)
class Plan:
    """What is to be prepared, in parts that any process can work on.

    Attributes:
        sources: raw files in the order in which their rows were recorded.
        on_bad_row: see ``prepare``.
        thinning: which events are left out.
        num_buckets: number of parts of the users, by a hash of the raw id.
    """

    sources: Sequence[Source]
    on_bad_row: OnBadRow
    thinning: Thinning
    num_buckets: int

    @property
    def source(self) -> Source:
        """The first source; ids and behaviours of all are alike."""
        return self.sources[0]

    @property
    def files(self) -> list[tuple[Source, Path]]:
        """All files of events, each with its source; a file's number is its place."""
        return [(source, file) for source in self.sources for file in source.files]

    def fingerprint(self) -> dict[str, Any]:
        """What the pieces of the work depend on, for the staging folder."""
        described = [{f.name: repr(getattr(source, f.name)) for f in fields(source)} for source in self.sources]
        stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for _, file in self.files]
        digest = hashlib.sha256(repr((described, stats, self.on_bad_row, self.thinning)).encode(errors="replace"))
        return {
            "inputs_and_options": digest.hexdigest(),
            "buckets": self.num_buckets,
            # Hashes of ids and layouts of pieces may differ between versions.
            "versions": [metadata.version("unigrf-dist"), duckdb.__version__],
        }


def make_plan(sources: Sequence[Source], on_bad_row: OnBadRow, thinning: Thinning) -> Plan:
    """The plan for these files.

    Raises:
        UserError: a file cannot be read.
    """
    rows = sum(_estimated_rows(source, file) for source in sources for file in source.files)
    buckets = min(max(1, -(-rows // _EVENTS_PER_BUCKET)), _MAX_BUCKETS)
    return Plan(sources, on_bad_row, thinning, buckets)


def _estimated_rows(source: Source, file: Path) -> int:
    """Rows of a file, or about as many; too many make more buckets than needed, and do no harm."""
    try:
        if source.layout == "parquet":
            with file.open("rb") as content:
                return int(pq.read_metadata(content).num_rows)
        return file.stat().st_size // (_BYTES_PER_COMPRESSED_ROW if file.suffix == ".gz" else _BYTES_PER_ROW)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
    except pa.ArrowException:
        # What is no Parquet file is refused when it is read, in the words of that place.
        return 0

"""The raw files that a data set was made of: a file that is appended twice would count twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unigrf_dist.data.manifest import Manifest
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.provenance import raw_file_records
from unigrf_dist.prepare.source import Source


def refuse_known_files(into: Path, before: Manifest, raws: Sequence[Path], sources: Sequence[Source]) -> None:
    """Raise UserError where a file to append is in the data set already, or is named twice.

    Args:
        into: folder of the data set, for messages.
        before: its manifest.
        raws, sources: what is to be appended, as it was named and as it was understood.
    """
    known = {(file.num_bytes, file.sha256): "its base" for file in before.raw_files}
    for number, day in enumerate(before.days, start=1):
        known |= {(file.num_bytes, file.sha256): f"its day {number}" for file in day.raw_files}
    events = [replace(source, item_features=None, user_features=None) for source in sources]
    seen: set[tuple[int, str]] = set()
    for file in raw_file_records(raws, events):
        key = (file.num_bytes, file.sha256)
        if key in known:
            raise UserError(f"{file.file}: {into} has the events of this file already, in {known[key]}")
        if key in seen:
            raise UserError(f"{file.file}: is named twice; its events would count twice")
        seen.add(key)

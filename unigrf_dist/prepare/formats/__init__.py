"""The raw formats that can be prepared. To add one, write a function in this folder and register it below.

A format is a function that looks at the path the user named and describes what lies there as a ``Source``;
reading, checking and sorting are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.formats import amazon, kuairand, movielens, movietweetings, own_table
from unigrf_dist.prepare.source import ColumnMapping, Source

FORMATS: dict[str, Callable[[Path], Source]] = {
    "movielens-1m": movielens.ratings_dat,
    "movielens-20m": movielens.ratings_csv,
    "amazon": amazon.reviews,
    "kuairand": kuairand.standard_log,
    "movietweetings": movietweetings.ratings_dat,
}
# What these mean only the user knows.
MAPPED_FORMATS: dict[str, Callable[[Path, ColumnMapping], Source]] = {
    "csv": own_table.csv,
    "parquet": own_table.parquet,
}


def describe(format: str, raw: Path, columns: ColumnMapping | None = None) -> Source:
    """What lies at ``raw``.

    Args:
        format: name of a format.
        raw: file or folder.
        columns: for the formats whose columns the user has to explain, and only for those; the default names
            of ``ColumnMapping`` if left out.

    Raises:
        UserError: no such format or files, or ``columns`` for a format that knows its own.
    """
    if format in MAPPED_FORMATS:
        return MAPPED_FORMATS[format](raw, columns or ColumnMapping())
    if format not in FORMATS:
        raise UserError(f"format {format!r} is unknown; there are {', '.join([*FORMATS, *MAPPED_FORMATS])}")
    if columns is not None:
        raise UserError(
            f"format {format!r} knows its columns; a column mapping is for {', '.join(MAPPED_FORMATS)}"
        )
    return FORMATS[format](raw)

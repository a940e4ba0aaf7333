"""The table of raw formats: their names, and the functions that describe their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.formats import amazon, kuairand, mapped_table, movielens, movietweetings, yambda
from unigrf_dist.prepare.source import ColumnMapping, Source

FORMATS: dict[str, Callable[[Path], Source]] = {
    "movielens-1m": movielens.ratings_dat,
    "movielens-20m": movielens.ratings_csv,
    "amazon": amazon.reviews,
    "kuairand": kuairand.standard_log,
    "movietweetings": movietweetings.ratings_dat,
    "yambda": yambda.multi_event,
}
# Formats whose columns the user has to name.
MAPPED_FORMATS: dict[str, Callable[[Path, ColumnMapping], Source]] = {
    "csv": mapped_table.csv,
    "jsonl": mapped_table.jsonl,
    "parquet": mapped_table.parquet,
}


def describe_all(
    format: str, raws: Sequence[Path], columns: ColumnMapping | None = None
) -> list[tuple[Path, Source]]:
    """What the user named, each path with the files that were found there, in the order in which they are read.

    Raises:
        UserError: no path is named, a file is named twice, or the files of two paths are not alike; see also
            ``describe``.
    """
    if not raws:
        raise UserError("no raw files are named; name them by --raw")
    found = [(raw, describe(format, raw, columns)) for raw in raws]
    files = [file.resolve() for _, source in found for file in source.files]
    for file, count in Counter(files).items():
        if count > 1:
            raise UserError(f"{file}: is named twice; its events would count twice")
    kinds = {(source.user_type, source.item_type, tuple(source.behaviours), source.limits) for _, source in found}
    if len(kinds) > 1:
        raise UserError(f"{raws[0]} and {raws[1]}: have other ids or behaviours; prepare them one by one")
    return found


def describe(format: str, raw: Path, columns: ColumnMapping | None = None) -> Source:
    """The raw files at ``raw``, as the format describes them. No row is read.

    Args:
        format: name of a format.
        raw: raw file, or folder that holds the format's files.
        columns: meaning of the columns, for ``MAPPED_FORMATS`` only; None for the default column names.

    Raises:
        UserError: the format is unknown, its files are not there, or ``columns`` are given for a format with fixed
            columns.
    """
    if format in MAPPED_FORMATS:
        return MAPPED_FORMATS[format](raw, columns or ColumnMapping())
    if format not in FORMATS:
        names = ", ".join([*FORMATS, *MAPPED_FORMATS])
        raise UserError(f"format {format!r} is unknown; there are {names}")
    if columns is not None:
        raise UserError(
            f"format {format!r} knows its columns; a column mapping is for {', '.join(MAPPED_FORMATS)}"
        )
    return FORMATS[format](raw)

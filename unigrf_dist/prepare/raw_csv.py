"""What must be known about a delimited text file before and after DuckDB reads it: its header and its lines."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import Delimited


def open_text(file: Path) -> TextIO:
    """Open a text file, compressed or not; bytes that are no UTF-8 are replaced."""
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return file.open(encoding="utf-8-sig", errors="replace", newline="")


def csv_columns(source: Delimited, file: Path) -> list[str]:
    """Names of all columns of ``file``, in order.

    Raises:
        UserError: the file is empty, has a column twice or not at all, or another delimiter.
    """
    try:
        with open_text(file) as lines:
            first = next((line for line in lines if line.strip()), None)
    except (OSError, EOFError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    if first is None:
        raise UserError(f"{file}: is empty")
    fields = _fields(first.rstrip("\r\n"), source)
    if source.header is not None:
        _check_width(source, source.header, fields, file)
        return list(source.header)
    check_columns(file, fields, source.columns, hint=_delimiter_hint(fields, source))
    return fields


def check_columns(file: Path, found: Sequence[str], needed: Iterable[str], *, hint: str = "") -> None:
    """Raise UserError unless every needed column is there and no column is there twice."""
    if repeated := sorted({name for name in found if found.count(name) > 1}):
        raise UserError(f"{file}: column {repeated[0]!r} is there more than once; rename or drop one")
    if missing := [name for name in needed if name not in found]:
        raise UserError(f"{file}: no column {missing[0]!r}; there are {', '.join(found[:20])}{hint}")


def physical_lines(file: Path, rows: Sequence[int], rejected: set[int], source: Delimited) -> list[int]:
    """Line of the file on which each of ``rows`` begins; everything counts from 1.

    Args:
        file: delimited text.
        rows: ascending numbers of the records that DuckDB returned, which are neither rejected nor blank.
        rejected: numbers of the records it rejected, blank ones and the header counted.
        source: how the file is written.
    """
    lines = []
    wanted = iter(rows)
    next_row = next(wanted, None)
    accepted = 0 if source.header is not None else -1
    with open_text(file) as text:
        for number, (line, record) in enumerate(_records(text, source.quoted), start=1):
            accepted += number not in rejected and bool(record.strip())
            if accepted == next_row:
                lines.append(line)
                next_row = next(wanted, None)
                if next_row is None:
                    break
    return lines


def _records(text: TextIO, quoted: bool) -> Iterator[tuple[int, str]]:
    """Each record with the number of its first line; a quoted field may span lines."""
    begun, record = 1, ""
    for number, line in enumerate(text, start=1):
        record += line
        if quoted and record.count('"') % 2:
            continue
        yield begun, record
        begun, record = number + 1, ""


def _fields(line: str, source: Delimited) -> list[str]:
    if source.quoted and len(source.delimiter) == 1:
        return next(csv.reader([line], delimiter=source.delimiter))
    return line.split(source.delimiter)


def _check_width(source: Delimited, header: Sequence[str], fields: list[str], file: Path) -> None:
    if len(fields) != len(header):
        raise UserError(
            f"{file}, line 1: {len(fields)} column(s) separated by {source.delimiter!r}, but "
            f"{len(header)} are needed: {source.delimiter.join(header)}"
        )


def _delimiter_hint(fields: list[str], source: Delimited) -> str:
    return f"; is the delimiter really {source.delimiter!r}?" if len(fields) == 1 else ""

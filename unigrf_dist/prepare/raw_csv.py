"""Delimited text around DuckDB's own reader: the header before it reads, line numbers of bad rows afterwards."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import RawTable


def open_text(file: Path) -> TextIO:
    """Open a text file for reading, compressed (``.gz``) or not; bytes that are not UTF-8 are replaced."""
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return file.open(encoding="utf-8-sig", errors="replace", newline="")


def first_lines(file: Path, count: int) -> list[str]:
    """The first non-blank lines of a text file, at most ``count``, without their line ends.

    Raises:
        UserError: the file cannot be read, or all its lines are blank.
    """
    try:
        with open_text(file) as text:
            lines = list(itertools.islice((line.rstrip("\r\n") for line in text if line.strip()), count))
    except (OSError, EOFError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    if not lines:
        raise UserError(f"{file}: is empty")
    return lines


def csv_columns(table: RawTable, file: Path) -> list[str]:
    """Names of all columns of ``file``, in the file's order.

    Raises:
        UserError: the file is empty, a needed column is missing or repeated, or the delimiter is another.
    """
    [first] = first_lines(file, 1)
    fields = _fields(first, table)
    if table.header is not None:
        _check_width(table, table.header, fields, file)
        return list(table.header)
    check_columns(file, fields, table.columns, hint=_delimiter_hint(fields, table))
    return fields


def check_columns(file: Path, found: Sequence[str], needed: Iterable[str], *, hint: str = "") -> None:
    """Raise UserError if a needed column is missing, or any column name occurs twice."""
    if repeated := sorted({name for name in found if found.count(name) > 1}):
        raise UserError(f"{file}: column {repeated[0]!r} occurs more than once; rename or drop one")
    if missing := [name for name in needed if name not in found]:
        raise UserError(f"{file}: no column {missing[0]!r}; there are {', '.join(found[:20])}{hint}")


def physical_lines(file: Path, rows: Sequence[int], rejected: set[int], table: RawTable) -> list[int]:
    """Line of the file on which each of ``rows`` begins. All numbers count from 1.

    Args:
        file: delimited text.
        rows: ascending numbers of records among those that DuckDB returned, which excludes rejected and blank
            ones.
        rejected: numbers of the records that DuckDB rejected, among all records with header and blank ones.
        table: how the file is written.
    """
    lines = []
    remaining = iter(rows)
    next_row = next(remaining, None)
    accepted = 0 if table.header is not None else -1
    with open_text(file) as text:
        for number, (line, record) in enumerate(_records(text, table.quoted), start=1):
            accepted += number not in rejected and bool(record.strip())
            if accepted == next_row:
                lines.append(line)
                next_row = next(remaining, None)
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


def _fields(line: str, table: RawTable) -> list[str]:
    if table.quoted and len(table.delimiter) == 1:
        return next(csv.reader([line], delimiter=table.delimiter))
    return line.split(table.delimiter)


def _check_width(table: RawTable, header: Sequence[str], fields: list[str], file: Path) -> None:
    if len(fields) != len(header):
        raise UserError(
            f"{file}, line 1: {len(fields)} column(s) separated by {table.delimiter!r}, but "
            f"{len(header)} are needed: {table.delimiter.join(header)}"
        )


def _delimiter_hint(fields: list[str], table: RawTable) -> str:
    return f"; is the delimiter really {table.delimiter!r}?" if len(fields) == 1 else ""

"""Text files around DuckDB's own reader: the header before it reads, line numbers of bad rows afterwards.

DuckDB alone reads values. Here the ``csv`` module finds the header and, once there is something to report, the
lines on which records begin.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.source import RawTable

# Stands for a delimiter of several characters, which the csv module does not know.
_UNIT_SEPARATOR = "\x1f"
# A quote that is never closed makes one field of the rest of the file.
_MAX_FIELD = 1 << 30


@dataclass(frozen=True)
class Header:
    """Head of a delimited file.

    Attributes:
        columns: names of all columns, in the file's order.
        skipped_lines: blank lines before it.
    """

    columns: list[str]
    skipped_lines: int


@dataclass(frozen=True)
class Located:
    """Where records stand in a file.

    Attributes:
        lines: line on which each wanted row begins, as far as found.
        rejected: first and last line of each rejected record, by its number.
    """

    lines: list[int]
    rejected: dict[int, tuple[int, int]]


def open_text(file: Path, encoding: str = "utf-8", *, errors: str = "replace", newline: str | None = "") -> TextIO:
    """Open a text file for reading, compressed (``.gz``) or not. Line ends stay as they are, unless ``newline`` is
    None, which makes each of them LF."""
    # A byte order mark is no part of the first column's name.
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding=encoding, errors=errors, newline=newline)
    return file.open(encoding=encoding, errors=errors, newline=newline)


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


def read_header(table: RawTable, file: Path) -> Header:
    """Names of all columns of ``file``, and where they stand.

    Raises:
        UserError: the file is empty, a needed column is missing or repeated, or the delimiter is another.
    """
    try:
        with open_text(file, table.encoding) as text:
            first = next((found for found in _records(text, table, file) if not _is_blank(found[2])), None)
    except (OSError, EOFError, UnicodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    if first is None:
        raise UserError(f"{file}: is empty")
    line, _, fields = first
    if table.header is not None:
        _check_width(table, table.header, fields, file)
        return Header(list(table.header), line - 1)
    check_columns(file, fields, table.file_columns, hint=_delimiter_hint(fields, table, file))
    return Header(fields, line - 1)


def check_columns(file: Path, found: Sequence[str], needed: Iterable[str], *, hint: str = "") -> None:
    """Raise UserError if a needed column is missing or occurs twice."""
    for name in needed:
        if name not in found:
            raise UserError(f"{file}: no column {name!r}; there are {', '.join(found[:20])}{hint}")
        if list(found).count(name) > 1:
            raise UserError(f"{file}: column {name!r} occurs more than once; rename or drop one")


def locate(file: Path, rows: Sequence[int], rejected: set[int], table: RawTable) -> Located:
    """Lines of the file on which records stand. All numbers count from 1.

    Args:
        file: text file.
        rows: ascending numbers of records among those that DuckDB returned, which excludes rejected and blank
            ones.
        rejected: numbers of the records that DuckDB rejected, among all records with header and blank ones.
        table: how the file is written.
    """
    found = Located([], {})
    accepted = -1 if table.layout == "csv" and table.header is None else 0
    with open_text(file, table.encoding) as text:
        for number, (begun, ended, fields) in enumerate(_records(text, table, file), start=1):
            if number in rejected:
                found.rejected[number] = (begun, ended)
            elif not _is_blank(fields):
                accepted += 1
                if len(found.lines) < len(rows) and accepted == rows[len(found.lines)]:
                    found.lines.append(begun)
            if len(found.lines) == len(rows) and len(found.rejected) == len(rejected):
                break
    return found


def has_mixed_line_ends(file: Path, encoding: str) -> bool:
    """Whether lines of a text file end in more than one of LF, CR LF and CR."""
    with open_text(file, encoding, newline=None) as text:
        while text.read(1 << 20):
            # The text counts the kinds that it has met.
            if isinstance(text.newlines, tuple):
                return True
    return False


def _records(text: TextIO, table: RawTable, file: Path) -> Iterator[tuple[int, int, list[str]]]:
    """First line, last line and fields of each record; a quoted field may span lines."""
    delimiter = table.delimiter_of(file)
    if table.layout != "csv" or not table.quoted:
        for number, line in enumerate(text, start=1):
            yield number, number, line.rstrip("\r\n").split(delimiter) if table.layout == "csv" else [line.strip()]
        return
    csv.field_size_limit(_MAX_FIELD)
    single = delimiter if len(delimiter) == 1 else _UNIT_SEPARATOR
    reader, begun = csv.reader((line.replace(delimiter, single) for line in text), delimiter=single), 1
    for fields in reader:
        yield begun, reader.line_num, [field.replace(single, delimiter) for field in fields]
        begun = reader.line_num + 1


def _is_blank(fields: Sequence[str]) -> bool:
    return not fields or list(fields) == [""]


def _check_width(table: RawTable, header: Sequence[str], fields: list[str], file: Path) -> None:
    if len(fields) != len(header):
        delimiter = table.delimiter_of(file)
        raise UserError(
            f"{file}, line 1: {len(fields)} column(s) separated by {delimiter!r}, but "
            f"{len(header)} are needed: {delimiter.join(header)}"
        )


def _delimiter_hint(fields: list[str], table: RawTable, file: Path) -> str:
    return f"; is the delimiter really {table.delimiter_of(file)!r}?" if len(fields) == 1 else ""

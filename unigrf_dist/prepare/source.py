"""``Source``: a format's description of its raw files; from it, reading is the same for all formats."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.data.manifest import IdType
from unigrf_dist.errors import UserError

Layout = Literal["csv", "jsonl", "parquet"]
TimeUnit = Literal["s", "ms", "us", "ns"]
# Numbers of rows of a file, from 0.
Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """How a table file is written. ``csv`` and ``jsonl`` may be compressed (``.gz``).

    Attributes:
        layout: kind of the file.
        delimiter: csv only, 1 to 4 characters; None for a tab in ``.tsv`` files and a comma in others.
        header: csv only; names of the columns when the file has no header line.
        quoted: csv only; whether fields may be in double quotes.
        encoding: csv only; any encoding that Python knows.
        partitions: columns that are not in the file but in the names of its folders, ``NAME=VALUE``.
        deleted: rows that are not read, by their files.
    """

    layout: Layout
    delimiter: str | None = ","
    header: Sequence[str] | None = None
    quoted: bool = True
    encoding: str = "utf-8"
    partitions: Sequence[str] = ()
    deleted: Mapping[Path, Positions] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that are read, without repetitions."""
        raise NotImplementedError

    @property
    def file_columns(self) -> list[str]:
        """Those of them that are in the file itself."""
        return [name for name in self.columns if name not in self.partitions]

    def delimiter_of(self, file: Path) -> str:
        """Characters between the columns of a csv file."""
        if self.delimiter is not None:
            return self.delimiter
        return "\t" if file.name.removesuffix(".gz").endswith(".tsv") else ","


@dataclass(frozen=True, kw_only=True)
class FeatureColumn:
    """Where the values of a categorical side feature are read.

    Attributes:
        column: name of the column in the file. A list in a Parquet file holds several values.
        separator: characters between several values in one text; None if a text is one value.
        pattern: regular expression whose first group is the value; None if the whole text is.
    """

    column: str
    separator: str | None = None
    pattern: str | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureSource(RawTable):
    """A file with side features, one row for each item or user.

    Attributes:
        file: the file.
        key: column of the raw ids.
        features: column of every feature, by the feature's name.
        title: column of what an item is called; None if there is none.
    """

    file: Path
    key: str
    features: Mapping[str, FeatureColumn]
    title: str | None = None

    @property
    def columns(self) -> list[str]:
        titles = [] if self.title is None else [self.title]
        return list(dict.fromkeys((self.key, *(feature.column for feature in self.features.values()), *titles)))


@dataclass(frozen=True, kw_only=True)
class Source(RawTable):
    """Files of raw events, all written alike, and the meaning of their columns.

    Attributes:
        files: files in the order in which their rows were recorded, which decides between events of equal time.
        user, item, timestamp: names of the columns.
        behaviours: column of every behaviour value, by the value's name. Without any, every event has the
            behaviour ``{"event": 1}``.
        limits: smallest and largest value a behaviour may have; None for any finite number.
        may_be_missing: whether behaviour values may be missing; an event has no value under such a name.
        buckets: ascending lower edges of the buckets of a behaviour value, by its name; a value becomes its edge.
        event_type: column of text whose every value becomes a behaviour value that is 1 for its events and 0 for
            the others; None if there is none.
        user_type, item_type: types of the raw ids: integers in [0, 2^63), or non-empty strings.
        time_unit: unit of integer timestamps.
        relative_times: whether times count from a day that nobody knows, so that times near 1970 are no mistake.
        item_features, user_features: files of the side features; None if there are none.
        notes: remarks for the user on which files were or were not there, one line each.
        snapshot: which snapshot of a table the files are; None if they are no table.
    """

    files: Sequence[Path]
    user: str
    item: str
    timestamp: str
    behaviours: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[float, float] | None = None
    may_be_missing: bool = False
    buckets: Mapping[str, Sequence[float]] = field(default_factory=dict)
    event_type: str | None = None
    user_type: IdType = "int64"
    item_type: IdType = "int64"
    time_unit: TimeUnit = "s"
    relative_times: bool = False
    item_features: FeatureSource | None = None
    user_features: FeatureSource | None = None
    notes: Sequence[str] = ()
    snapshot: str | None = None

    @property
    def columns(self) -> list[str]:
        kinds = () if self.event_type is None else (self.event_type,)
        return list(dict.fromkeys((self.user, self.item, self.timestamp, *kinds, *self.behaviours.values())))

    @property
    def value_types(self) -> list[str]:
        """SQL types of what distinguishes behaviours: the event type if there is one, then the named values."""
        return ["VARCHAR"] * (self.event_type is not None) + ["DOUBLE"] * len(self.behaviours)


@dataclass(frozen=True, kw_only=True)
class ColumnMapping:
    """The meaning of the columns of ``csv``, ``jsonl`` or ``parquet`` files, as the user gives it.

    Attributes:
        user, item, timestamp: names of the columns.
        title: column of ``item_file`` with the titles of the items; None if there is none.
        behaviours: columns with numbers that describe the event, such as a rating or a click, or ``NAME:COLUMN``
            to name the value otherwise than its column; may be empty.
        event_type, buckets, partitions: see ``Source`` and ``RawTable``.
        string_ids: whether user and item ids are text instead of integers.
        time_unit: unit of timestamps that are numbers.
        delimiter, quoted, encoding: see ``RawTable``.
        item_features, user_features: feature columns of ``item_file`` and ``user_file``, which hold the ids under
            the same column names as the events.
        separators: characters between the values of a feature column whose text holds several, by column.
        item_file, user_file: files of the side features, of any of the formats.
    """

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str = "timestamp"
    title: str | None = None
    behaviours: Sequence[str] = ()
    event_type: str | None = None
    buckets: Mapping[str, Sequence[float]] = field(default_factory=dict)
    partitions: Sequence[str] = ()
    string_ids: bool = False
    time_unit: TimeUnit = "s"
    delimiter: str | None = None
    quoted: bool = True
    encoding: str = "utf-8"
    item_features: Sequence[str] = ()
    user_features: Sequence[str] = ()
    separators: Mapping[str, str] = field(default_factory=dict)
    item_file: Path | None = None
    user_file: Path | None = None

    @property
    def named_behaviours(self) -> dict[str, str]:
        """Column of every behaviour value, by the value's name."""
        split = (re.fullmatch(r"([^\W\d]\w*):(.+)", option) for option in self.behaviours)
        pairs = zip(self.behaviours, split, strict=True)
        return {found[1] if found else option: found[2] if found else option for option, found in pairs}

    def as_arguments(self) -> dict[str, str]:
        """The mapping of the event columns as ``Manifest.arguments``, named as on the command line."""
        columns = {"user": self.user, "item": self.item, "timestamp": self.timestamp}
        named = {f"column {meaning}": name for meaning, name in columns.items()}
        edges = {name: ",".join(f"{edge:g}" for edge in found) for name, found in self.buckets.items()}
        others = {
            "column title": self.title,
            "column behaviour": ", ".join(self.behaviours),
            "event_type": self.event_type,
            "buckets": "; ".join(f"{name}={found}" for name, found in edges.items()),
            "partition": ", ".join(self.partitions),
            "delimiter": self.delimiter,
            "quotes": "" if self.quoted else "none",
            "separator": "; ".join(f"{name}={characters}" for name, characters in self.separators.items()),
            "encoding": "" if self.encoding == "utf-8" else self.encoding,
        }
        return {**named, **{name: value for name, value in others.items() if value}, "time_unit": self.time_unit}


def find_files(raw: Path, *patterns: str) -> list[Path]:
    """The raw files: ``raw`` itself, or the files of the folder ``raw`` that match.

    Files and folders whose names begin with ``.`` or ``_`` are those of other programs (``_temporary``,
    ``_SUCCESS``, ``._x``) and are left out.

    Args:
        raw: file or folder.
        patterns: glob patterns in order of preference; the first that matches any file decides.

    Raises:
        UserError: ``raw`` does not exist or cannot be read, or no file of the folder matches.
    """
    try:
        if raw.is_file():
            return [raw]
        if not raw.is_dir():
            raise UserError(f"{raw}: no such file or folder")
        files = [path for path in _visible_files(raw) if path.is_file()]
    except OSError as error:
        raise UserError(f"{error.filename or raw}: cannot be read: {error.strerror}") from error
    for pattern in patterns:
        if found := sorted(path for path in files if _matches(path.relative_to(raw), pattern)):
            return found
    raise UserError(f"{raw}: holds no {' or '.join(patterns)}; name the file itself, or choose another format")


def _visible_files(folder: Path) -> Iterator[Path]:
    def failed(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=failed, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        yield from (Path(place, name) for name in names if not name.startswith((".", "_")))


def _matches(path: Path, pattern: str) -> bool:
    """Whether a path below the raw folder matches; ``**/`` at the beginning stands for any folders."""
    if pattern.startswith("**/"):
        return fnmatchcase(path.name, pattern[3:])
    return len(path.parts) == pattern.count("/") + 1 and fnmatchcase(str(path), pattern)

"""``Source``: a format's description of its raw files; from it, reading is the same for all formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unigrf_dist.data.manifest import IdType
from unigrf_dist.errors import UserError

Layout = Literal["csv", "jsonl", "parquet"]
TimeUnit = Literal["s", "ms", "us"]


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """How a table file is written. ``csv`` and ``jsonl`` may be compressed (``.gz``).

    Attributes:
        layout: kind of the file.
        delimiter: csv only, 1 to 4 characters.
        header: csv only; names of the columns when the file has no header line.
        quoted: csv only; whether fields may be in double quotes.
        encoding: csv only; ``utf-8`` or ``latin-1``.
    """

    layout: Layout
    delimiter: str = ","
    header: Sequence[str] | None = None
    quoted: bool = True
    encoding: str = "utf-8"

    @property
    def columns(self) -> list[str]:
        """Names of the columns that are read, without repetitions."""
        raise NotImplementedError


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
    """

    file: Path
    key: str
    features: Mapping[str, FeatureColumn]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys((self.key, *(feature.column for feature in self.features.values()))))


@dataclass(frozen=True, kw_only=True)
class Source(RawTable):
    """Files of raw events, all written alike, and the meaning of their columns.

    Attributes:
        files: files in the order in which their rows were recorded, which decides between events of equal time.
        user, item, timestamp: names of the columns.
        behaviours: column of every behaviour value, by the value's name. Without any, every event has the
            behaviour ``{"event": 1}``.
        limits: smallest and largest value a behaviour may have; None for any finite number.
        user_type, item_type: types of the raw ids: integers in [0, 2^63), or non-empty strings.
        time_unit: unit of integer timestamps.
        item_features, user_features: files of the side features; None if there are none.
        notes: remarks for the user on which files were or were not there, one line each.
    """

    files: Sequence[Path]
    user: str
    item: str
    timestamp: str
    behaviours: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[float, float] | None = None
    user_type: IdType = "int64"
    item_type: IdType = "int64"
    time_unit: TimeUnit = "s"
    item_features: FeatureSource | None = None
    user_features: FeatureSource | None = None
    notes: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys((self.user, self.item, self.timestamp, *self.behaviours.values())))


@dataclass(frozen=True, kw_only=True)
class ColumnMapping:
    """The meaning of the columns of ``csv`` or ``parquet`` files, as the user gives it.

    Attributes:
        user, item, timestamp: names of the columns.
        behaviours: columns with numbers that describe the event, such as a rating or a click; may be empty.
        string_ids: whether user and item ids are text instead of integers.
        time_unit: unit of integer timestamps: seconds, milliseconds or microseconds.
        delimiter: characters between the columns of csv files.
        item_features, user_features: feature columns of ``item_file`` and ``user_file``, which hold the ids under
            the same column names as the events.
        separators: characters between the values of a feature column whose text holds several, by column.
        item_file, user_file: files of the side features, csv or Parquet.
    """

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str = "timestamp"
    behaviours: Sequence[str] = ()
    string_ids: bool = False
    time_unit: TimeUnit = "s"
    delimiter: str = ","
    item_features: Sequence[str] = ()
    user_features: Sequence[str] = ()
    separators: Mapping[str, str] = field(default_factory=dict)
    item_file: Path | None = None
    user_file: Path | None = None

    def as_arguments(self) -> dict[str, str]:
        """The mapping of the event columns as ``Manifest.arguments``, named as on the command line."""
        columns = {"user": self.user, "item": self.item, "timestamp": self.timestamp}
        named = {f"column {meaning}": name for meaning, name in columns.items()}
        if self.behaviours:
            named["column behaviour"] = ", ".join(self.behaviours)
        return {**named, "time_unit": self.time_unit}


def find_files(raw: Path, *patterns: str) -> list[Path]:
    """The raw files: ``raw`` itself, or the files of the folder ``raw`` that match.

    Args:
        raw: file or folder.
        patterns: glob patterns in order of preference; the first that matches any file decides.

    Raises:
        UserError: ``raw`` does not exist, or no file of the folder matches.
    """
    if raw.is_file():
        return [raw]
    if not raw.is_dir():
        raise UserError(f"{raw}: no such file or folder")
    for pattern in patterns:
        if found := sorted(path for path in raw.glob(pattern) if path.is_file()):
            return found
    raise UserError(f"{raw}: holds no {' or '.join(patterns)}; name the file itself, or choose another format")

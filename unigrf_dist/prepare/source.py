"""``Source``: all that a raw format has to say about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from unigrf_dist.data.manifest import IdType
from unigrf_dist.errors import UserError

Layout = Literal["csv", "jsonl", "parquet"]
TimeUnit = Literal["s", "ms", "us"]


class Delimited(Protocol):
    """How files are written; see ``Source``."""

    @property
    def delimiter(self) -> str: ...

    @property
    def header(self) -> Sequence[str] | None: ...

    @property
    def quoted(self) -> bool: ...

    @property
    def columns(self) -> list[str]: ...


@dataclass(frozen=True, kw_only=True)
class FeatureColumn:
    """Where the values of a categorical side feature are read.

    Attributes:
        column: of the file. Lists of a Parquet file are several values.
        separator: between several values in one text; None if there is one.
        pattern: regular expression whose first group is the value; the whole text if None.
    """

    column: str
    separator: str | None = None
    pattern: str | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """A file with side features, one row for each item or user.

    Attributes:
        file: csv or Parquet.
        layout: of it.
        key: column of the raw ids.
        features: by name.
        delimiter, header, quoted: csv only; see ``Source``.
        encoding: csv only; ``utf-8`` or ``latin-1``.
    """

    file: Path
    layout: Literal["csv", "parquet"]
    key: str
    features: Mapping[str, FeatureColumn]
    delimiter: str = ","
    header: Sequence[str] | None = None
    quoted: bool = True
    encoding: str = "utf-8"

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys((self.key, *(feature.column for feature in self.features.values()))))


@dataclass(frozen=True, kw_only=True)
class Source:
    """Raw files and the meaning of their columns.

    Attributes:
        files: in the order in which their rows count as recorded.
        layout: of every file. ``csv`` and ``jsonl`` may be compressed (``.gz``).
        user, item, timestamp: columns.
        behaviours: column of every behaviour value, by the value's name; none means that an event is all there
            is to say, and becomes ``{"event": 1}``.
        limits: smallest and largest value a behaviour may have.
        user_type, item_type: integers must lie in [0, 2^63); strings must not be empty.
        time_unit: of ``timestamp``, whose values are integers.
        delimiter: csv only, 1 to 4 characters.
        header: csv only; names of the columns when the files have no header line.
        quoted: csv only; whether fields may stand in double quotes.
        item_features, user_features: where the side features are; None if there are none.
        notes: what the user should know about what was or was not found, one line each.
    """

    files: Sequence[Path]
    layout: Layout
    user: str
    item: str
    timestamp: str
    behaviours: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[float, float] | None = None
    user_type: IdType = "int64"
    item_type: IdType = "int64"
    time_unit: TimeUnit = "s"
    delimiter: str = ","
    header: Sequence[str] | None = None
    quoted: bool = True
    item_features: FeatureSource | None = None
    user_features: FeatureSource | None = None
    notes: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys((self.user, self.item, self.timestamp, *self.behaviours.values())))


@dataclass(frozen=True, kw_only=True)
class ColumnMapping:
    """What the columns of one's own ``csv`` or ``parquet`` files mean.

    Attributes:
        user, item, timestamp: columns.
        behaviours: columns with numbers that describe the event, such as a rating or a click; may be none.
        string_ids: user and item ids are text and not integers.
        time_unit: seconds, milliseconds or microseconds.
        delimiter: of csv files.
        item_features, user_features: columns of the files of side features, which have the ids in columns named
            like those of the events.
        separators: of the columns among those whose text holds several values.
        item_file, user_file: those files, csv or Parquet.
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
        """What a manifest says of the columns of events, in the words of the command line."""
        columns = {"user": self.user, "item": self.item, "timestamp": self.timestamp}
        named = {f"column {meaning}": name for meaning, name in columns.items()}
        if self.behaviours:
            named["column behaviour"] = ", ".join(self.behaviours)
        return {**named, "time_unit": self.time_unit}


def find_files(raw: Path, *patterns: str) -> list[Path]:
    """The raw files: ``raw`` itself, or those in the folder ``raw`` that match the first pattern that any match.

    Raises:
        UserError: there are none.
    """
    if raw.is_file():
        return [raw]
    if not raw.is_dir():
        raise UserError(f"{raw}: no such file or folder")
    for pattern in patterns:
        if found := sorted(path for path in raw.glob(pattern) if path.is_file()):
            return found
    raise UserError(f"{raw}: holds no {' or '.join(patterns)}; name the file itself, or choose another format")

"""The manifest of a data set: its counts, the rules it was made by, and size and hash of its files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unigrf_dist.errors import UserError

MANIFEST_FILE = "manifest.json"
_HASH_KEY = "sha256_of_the_rest"
ITEMS_FILE = "items.parquet"
USERS_FILE = "users.parquet"
SEQUENCES_FOLDER = "sequences"
DAYS_FOLDER = "days"
FEATURES_FOLDER = "features"
# Synthetic data sets only: metrics of the planted optimum.
PLANTED_FILE = "planted.json"

SPLIT_RULE = (
    "per user of 3 or more events: the last is test, the one before it validation, the rest training; "
    "users of fewer events are training only"
)
TIE_RULE = "events of equal time keep the order of the raw files"

IdType = Literal["int64", "string"]
Owner = Literal["item", "user"]
Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """A file of the data set. ``file`` is relative to the folder of the manifest."""

    file: str
    num_bytes: Count
    sha256: str


class ShardRecord(FileRecord):
    """A sequence shard. All its row groups but the last hold ``Manifest.row_group_users`` users.

    Attributes:
        num_users, num_events: its users, and their events there.
        day: number of the appended day whose new users these are; 0 for those who were there before.
    """

    num_users: Count
    num_events: Count
    day: Count = 0


class DeltaRecord(FileRecord):
    """Later events of users of one shard, which are merged on reading.

    Attributes:
        shard: index of the shard in ``Manifest.shards``.
        day: number of the day that brought them, from 1.
        num_users, num_events: users in the file, and their events there.
    """

    shard: Count
    day: Annotated[int, Field(ge=1)]
    num_users: Count
    num_events: Count


class FeatureRecord(_Record):
    """A categorical side feature. Its code 0 stands for a missing or unknown value.

    Attributes:
        name: unique among the features of its owner.
        owner: whether items or users have it. Item codes are in ``Manifest.item_features``, user codes in the
            shards.
        cardinality: number of codes, code 0 included.
        multi_valued: whether an owner may have several values.
        num_missing: owners without a value.
        vocabulary: file with the raw value of every code.
    """

    name: str
    owner: Owner
    cardinality: Annotated[int, Field(ge=1)]
    multi_valued: bool
    num_missing: Count
    vocabulary: FileRecord


class SkippedRows(_Record):
    """Raw rows that were skipped because they could not be read.

    Attributes:
        count: number of skipped rows.
        sample: the first of them, each as a line that says where it is and what is wrong.
    """

    count: Count = 0
    sample: list[str] = []


class RawFileRecord(_Record):
    """A raw file that was read.

    Attributes:
        file: its path below the raw folder, or its name where the file itself was named.
        num_bytes: its size.
        sha256: SHA-256 of its bytes; with ``sampled``, of its size and of pieces spread over it.
        sampled: whether that is so, which is for files above 64 MiB.
        snapshot: which snapshot of a Delta or Iceberg table it was read for; None if it is in none.
    """

    file: str
    num_bytes: Count
    sha256: str
    sampled: bool = False
    # Absent where there is none: other data sets keep their bytes.
    snapshot: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None


class DataWarning(_Record):
    """Something in the raw data that is probably not meant.

    Attributes:
        kind: what it is about, such as ``times_in_1970``.
        count: number of events or rows, or of what the message counts.
        message: one line for the user, count included.
    """

    kind: str
    count: Count
    message: str


class DayRecord(_Record):
    """What one ``unigrf prepare --append`` added behind what there was.

    Attributes:
        num_events: its events, those of new users included.
        num_users, num_items: new users and new items; the ids of both come behind the others.
        num_known_users: users from before that it has events of.
        num_behaviours: new behaviour codes.
        num_values: new values of side features by owner and name (``item/brand``), where there are some.
        num_training_events, num_training_only_users: by how much it changed the counts of the data set.
        first_timestamp, last_timestamp: range of its event times, in seconds.
        num_unsorted_users: users whose events of the day were not in the order of time.
        skipped_rows: rows that were skipped.
        raw_files: the raw files.
        folded: whether ``unigrf compact`` has put its events among the others; it has no files of its own then.
        users: file of what the next day must know of the users that this one touched.
        items: file of the new items, and of what changes in the training events of the others.
        item_features: file with the codes of the new items; None without item features.
        vocabularies: files with the new values of side features, by owner and name.
    """

    num_events: Count
    num_users: Count
    num_items: Count
    num_known_users: Count
    num_behaviours: Count = 0
    num_values: dict[str, Count] = {}
    num_training_events: int = 0
    num_training_only_users: int = 0
    first_timestamp: int
    last_timestamp: int
    num_unsorted_users: Count = 0
    skipped_rows: SkippedRows = SkippedRows()
    raw_files: list[RawFileRecord] = []
    folded: bool = False
    users: FileRecord | None = None
    items: FileRecord | None = None
    item_features: FileRecord | None = None
    vocabularies: dict[str, FileRecord] = {}

    @property
    def files(self) -> list[FileRecord]:
        """Its files but for shards and deltas."""
        named = (self.users, self.items, self.item_features, *self.vocabularies.values())
        return [record for record in named if record is not None]


class Manifest(_Record):
    """Content of ``manifest.json``.

    Attributes:
        source: name of the raw format, or ``synthetic``.
        arguments: arguments it was prepared with, by name.
        num_training_only_users: users with too few events to hold any out.
        num_unsorted_users: users whose raw events were not in chronological order.
        first_timestamp, last_timestamp: range of the event times, in seconds.
        behaviours: named values of every behaviour code.
        behaviour_counts: events of every behaviour code.
        row_group_users: users of a row group.
        items: file of the item dictionary: dense id, raw id, training events, and title where there are titles.
        shards: sequence files, in the order of the dense user ids.
        features: side features of items and users.
        item_features: file with the codes of the items, one column per feature; None without item features.
        num_repeats: events whose item the user had met before, among the ``num_counted_events``; None where nobody
            counted.
        num_duplicates: events that equal another of the same user, time, item and behaviour; None as above.
        warnings: what in the raw data is probably not meant.
        version: version of the package that wrote this.
        raw_files: the raw files, in the order in which they were read.
        users: file of what an append must know of every user; None in data sets of older versions.
        deltas: later events of users of the shards, day by day.
        days: what was appended, oldest first; all other counts include it, but for skipped rows and raw files.
    """

    schema_version: Literal[1] = 1
    source: str
    arguments: dict[str, str | int | float]
    num_users: Count
    num_items: Count
    num_events: Count
    num_training_events: Count
    num_training_only_users: Count
    num_unsorted_users: Count = 0
    first_timestamp: int
    last_timestamp: int
    behaviours: list[dict[str, float]]
    behaviour_counts: list[Count]
    raw_user_type: IdType
    raw_item_type: IdType
    split_rule: str = SPLIT_RULE
    tie_rule: str = TIE_RULE
    row_group_users: Annotated[int, Field(ge=1)]
    skipped_rows: SkippedRows = SkippedRows()
    items: FileRecord
    shards: list[ShardRecord]
    features: list[FeatureRecord] = []
    item_features: FileRecord | None = None
    num_repeats: Count | None = None
    num_duplicates: Count | None = None
    warnings: list[DataWarning] = []
    version: str = ""
    raw_files: list[RawFileRecord] = []
    users: FileRecord | None = None
    deltas: list[DeltaRecord] = []
    days: list[DayRecord] = []

    @property
    def files(self) -> list[FileRecord]:
        """All files of the data set but the manifest itself."""
        codes = [] if self.item_features is None else [self.item_features]
        users = [] if self.users is None else [self.users]
        vocabularies = [feature.vocabulary for feature in self.features]
        days = [record for day in self.days for record in day.files]
        return [self.items, *codes, *vocabularies, *self.shards, *users, *self.deltas, *days]

    @property
    def num_counted_events(self) -> int:
        """Events that were looked at together: all but those of days that are not folded in."""
        return self.num_events - sum(day.num_events for day in self.days if not day.folded)

    def features_of(self, owner: Owner) -> dict[str, FeatureRecord]:
        """The side features of items or of users, by name."""
        return {feature.name: feature for feature in self.features if feature.owner == owner}

    @model_validator(mode="after")
    def _sums_agree(self) -> Manifest:
        users = sum(shard.num_users for shard in self.shards)
        events = sum(shard.num_events for shard in self.shards) + sum(delta.num_events for delta in self.deltas)
        for name, total in (("num_users", users), ("num_events", events)):
            if total != getattr(self, name):
                raise ValueError(f"{name} is {getattr(self, name)}, but the shards' sum is {total}")
        if any(delta.shard >= len(self.shards) or delta.day > len(self.days) for delta in self.deltas):
            raise ValueError("deltas names a shard or a day that is not there")
        if len(self.behaviour_counts) != len(self.behaviours):
            raise ValueError(
                f"behaviour_counts has {len(self.behaviour_counts)} entries for {len(self.behaviours)} behaviours"
            )
        names = [(feature.owner, feature.name) for feature in self.features]
        if len(set(names)) < len(names):
            raise ValueError(f"features holds a name twice: {', '.join(name for _, name in names)}")
        if (self.item_features is None) != (not self.features_of("item")):
            raise ValueError("item_features must be present if and only if items have features")
        return self


def file_record(folder: Path, file: str) -> FileRecord:
    """Size and SHA-256 of ``folder / file``."""
    path = folder / file
    return FileRecord(file=file, num_bytes=path.stat().st_size, sha256=sha256(path))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into ``folder``, whole or not at all."""
    partial = folder / f".{MANIFEST_FILE}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(with_hash(manifest.model_dump_json(indent=1)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / MANIFEST_FILE)


def with_hash(body: str) -> str:
    """The indented JSON object ``body`` with the SHA-256 of its own text as first key."""
    return f'{{\n "{_HASH_KEY}": "{hashlib.sha256(body.encode()).hexdigest()}",{body.removeprefix("{")}'


def without_hash(text: str) -> str:
    """What ``with_hash`` was given.

    Raises:
        ValueError: it was altered since.
    """
    head, separator, rest = text.rstrip("\n").partition(",")
    if _HASH_KEY not in head:
        return text  # of a version that wrote none
    body = "{" + rest
    if not separator or with_hash(body) != text.rstrip("\n"):
        raise ValueError("altered since it was written: its SHA-256 differs")
    return body


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a data set.

    Raises:
        UserError: there is none, or this version cannot read it.
    """
    path = folder / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no data set here ({MANIFEST_FILE} is missing); make one with `unigrf prepare` or "
            "`unigrf synthesize`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    try:
        return Manifest.model_validate_json(without_hash(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UserError(
            f"{path}: {where}: {first['msg']}; prepare the data set again with this version"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; copy the data set again, or prepare it anew") from error

"""The column options of the command line as a ``ColumnMapping``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unigrf_dist.data.feature_files import ITEM_COLUMN
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.formats import MAPPED_FORMATS
from unigrf_dist.prepare.source import ColumnMapping, TimeUnit

_SINGLE = ("user", "item", "timestamp", "title")
_MAX_DELIMITER = 4
_REPEATED = {"behaviour": "behaviours", "item_feature": "item_features", "user_feature": "user_features"}


def column_mapping(
    format: str,
    columns: Sequence[str],
    *,
    string_ids: bool,
    time_unit: TimeUnit,
    delimiter: str | None = None,
    no_quotes: bool = False,
    encoding: str = "utf-8",
    event_type: str | None = None,
    buckets: Sequence[str] = (),
    partitions: Sequence[str] = (),
    separators: Sequence[str] = (),
    item_features: Path | None = None,
    user_features: Path | None = None,
) -> ColumnMapping | None:
    """The mapping that the column options describe; None for formats with fixed columns.

    Args:
        format: name of the format.
        columns: options ``MEANING=NAME``.
        string_ids, time_unit, event_type, partitions: see ``ColumnMapping``.
        delimiter: as it is typed: ``\\t`` and ``\\x01`` stand for the characters that they escape.
        no_quotes: whether a double quote in csv files is a character like any other.
        encoding: encoding of csv files, by a name that Python knows.
        buckets: options ``NAME=EDGES``, for behaviour values that are continuous.
        separators: options ``NAME=CHARACTERS``, for feature columns whose text holds several values.
        item_features, user_features: files of the side features.

    Raises:
        UserError: an option is malformed or repeated; features lack their file, or a file lacks features; there
            are column options for a format with fixed columns.
    """
    if format not in MAPPED_FORMATS:
        asked = (columns, string_ids, time_unit != "s", delimiter is not None and delimiter != ",", no_quotes)
        more = (encoding != "utf-8", event_type, buckets, partitions, separators, item_features, user_features)
        if any((*asked, *more)):
            raise UserError(
                f"format {format!r} knows its columns; column options are for {', '.join(MAPPED_FORMATS)}"
            )
        return None
    ids, repeated = _by_meaning(columns)
    for owner, file in (("item", item_features), ("user", user_features)):
        names, title = repeated[f"{owner}_features"], ids.get("title") if owner == "item" else None
        _check_feature_names(names)
        wanted = [f"{owner}_feature={name}" for name in names] + ([f"title={title}"] if title else [])
        if wanted and file is None:
            raise UserError(f"--column {wanted[0]}: name its file by --{owner}-features FILE")
        if file is not None and not wanted:
            also = " or title=NAME" if owner == "item" else ""
            raise UserError(f"--{owner}-features {file}: name its columns by --column {owner}_feature=NAME{also}")
    mapping = ColumnMapping(
        user=ids.get("user", ColumnMapping.user),
        item=ids.get("item", ColumnMapping.item),
        timestamp=ids.get("timestamp", ColumnMapping.timestamp),
        title=ids.get("title"),
        behaviours=repeated["behaviours"],
        event_type=event_type,
        partitions=partitions,
        item_features=repeated["item_features"],
        user_features=repeated["user_features"],
        separators=_separators(separators, {*repeated["item_features"], *repeated["user_features"]}),
        item_file=item_features,
        user_file=user_features,
        string_ids=string_ids,
        time_unit=time_unit,
        delimiter=None if delimiter is None else _delimiter(delimiter),
        quoted=not no_quotes,
        encoding=_encoding(encoding),
    )
    _check_behaviours(mapping)
    return replace(mapping, buckets=_buckets(buckets, mapping.named_behaviours))


def _delimiter(typed: str) -> str:
    """The delimiter that was typed, with its escapes resolved."""
    delimiter = re.sub(r"\\(t|x[0-9a-fA-F]{2})", lambda found: _unescaped(found[1]), typed)
    if not delimiter or len(delimiter) > _MAX_DELIMITER or set(delimiter) & set('"\r\n'):
        raise UserError(
            f"--delimiter {typed!r}: write 1 to {_MAX_DELIMITER} characters, no double quote and no line end "
            "among them, such as ';', '\\t' for a tab or '\\x01'"
        )
    return delimiter


def _unescaped(escape: str) -> str:
    return "\t" if escape == "t" else chr(int(escape[1:], 16))


def _encoding(name: str) -> str:
    try:
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise UserError(
            f"--encoding {name}: no such encoding; there are utf-8, latin-1, cp1252, gb18030, …"
        ) from error
    return name


def _check_behaviours(mapping: ColumnMapping) -> None:
    """Raise UserError unless the behaviour values have names, each its own, that a task rule can contain."""
    named = mapping.named_behaviours
    if len(named) < len(mapping.behaviours):
        raise UserError(f"--column behaviour={mapping.behaviours[-1]}: two behaviour values have one name")
    for name, column in named.items():
        if not re.fullmatch(r"[^\W\d]\w*", name):
            good = re.sub(r"\W", "_", column)
            good = good if re.match(r"[^\W\d]", good) else f"_{good}"
            raise UserError(
                f"--column behaviour={column}: no rule could name this value; give it a name of letters, digits "
                f"and _, as in behaviour={good}:{column}"
            )


def _buckets(options: Sequence[str], behaviours: Mapping[str, str]) -> dict[str, list[float]]:
    """Lower edges of the buckets by the behaviour's name; 0 is the lowest one unless a lower one is given."""
    by_name = {}
    for option in options:
        name, _, edges = option.partition("=")
        try:
            found = [float(edge) for edge in edges.split(",")]
        except ValueError:
            found = []
        if (
            name not in behaviours
            or not found
            or not all(map(math.isfinite, found))
            or sorted(set(found)) != found
        ):
            raise UserError(
                f"--buckets {option}: write NAME=EDGES, as in watch=10,30,60, with ascending lower edges and NAME "
                f"one of the behaviours: {', '.join(behaviours) or 'there are none'}"
            )
        by_name[name] = found if found[0] <= 0 else [0.0, *found]
    return by_name


def _by_meaning(columns: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    single: dict[str, str] = {}
    repeated: dict[str, list[str]] = {name: [] for name in _REPEATED.values()}
    for option in columns:
        meaning, separator, name = option.partition("=")
        if not separator or not name or meaning not in (*_SINGLE, *_REPEATED):
            allowed = ", ".join((*_SINGLE, *_REPEATED))
            raise UserError(f"--column {option}: write MEANING=NAME with MEANING one of {allowed}")
        if meaning in _REPEATED:
            repeated[_REPEATED[meaning]].append(name)
        elif meaning in single:
            raise UserError(f"--column {option}: {meaning} is given twice ({single[meaning]} before)")
        else:
            single[meaning] = name
    return single, repeated


def _separators(options: Sequence[str], features: set[str]) -> dict[str, str]:
    by_column = {}
    for option in options:
        name, sign, characters = option.partition("=")
        if not sign or not characters or name not in features:
            raise UserError(
                f"--separator {option}: write NAME=CHARACTERS with NAME one of the features: "
                f"{', '.join(sorted(features)) or 'there are none'}"
            )
        by_column[name] = characters
    return by_column


def _check_feature_names(names: Sequence[str]) -> None:
    """Raise UserError unless the names can name files and columns, and differ whatever their case."""
    for name in names:
        if not re.fullmatch(r"\w+", name) or name == ITEM_COLUMN:
            raise UserError(
                f"feature {name!r}: a name is made of letters, digits and _, not {ITEM_COLUMN}; rename the column"
            )
    folded = [name.casefold() for name in names]
    if repeated := sorted({name for name in folded if folded.count(name) > 1}):
        raise UserError(f"feature {repeated[0]!r} is named twice")

"""The column options of the command line as a ``ColumnMapping``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from unigrf_dist.data.feature_files import ITEM_COLUMN
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.formats import MAPPED_FORMATS
from unigrf_dist.prepare.source import ColumnMapping, TimeUnit

_SINGLE = ("user", "item", "timestamp")
_REPEATED = {"behaviour": "behaviours", "item_feature": "item_features", "user_feature": "user_features"}


def column_mapping(
    format: str,
    columns: Sequence[str],
    *,
    string_ids: bool,
    time_unit: TimeUnit,
    delimiter: str,
    separators: Sequence[str] = (),
    item_features: Path | None = None,
    user_features: Path | None = None,
) -> ColumnMapping | None:
    """The mapping that the column options describe; None for formats with fixed columns.

    Args:
        format: name of the format.
        columns: options ``MEANING=NAME``.
        string_ids, time_unit, delimiter: see ``ColumnMapping``.
        separators: options ``NAME=CHARACTERS``, for feature columns whose text holds several values.
        item_features, user_features: files of the side features.

    Raises:
        UserError: an option is malformed or repeated; features lack their file, or a file lacks features; there
            are column options for a format with fixed columns.
    """
    if format not in MAPPED_FORMATS:
        given = (columns, string_ids, time_unit != "s", delimiter != ",", separators, item_features, user_features)
        if any(given):
            raise UserError(
                f"format {format!r} knows its columns; column options are for {', '.join(MAPPED_FORMATS)}"
            )
        return None
    ids, repeated = _by_meaning(columns)
    for owner, file in (("item", item_features), ("user", user_features)):
        names = repeated[f"{owner}_features"]
        _check_feature_names(names)
        if names and file is None:
            raise UserError(f"--column {owner}_feature={names[0]}: name its file by --{owner}-features FILE")
        if file is not None and not names:
            raise UserError(f"--{owner}-features {file}: name its columns by --column {owner}_feature=NAME")
    return ColumnMapping(
        **ids,
        behaviours=repeated["behaviours"],
        item_features=repeated["item_features"],
        user_features=repeated["user_features"],
        separators=_separators(separators, {*repeated["item_features"], *repeated["user_features"]}),
        item_file=item_features,
        user_file=user_features,
        string_ids=string_ids,
        time_unit=time_unit,
        delimiter=delimiter,
    )


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

"""The options of a preparation as its manifest records them: an append takes them over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from unigrf_dist.data.manifest import Manifest
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.formats import MAPPED_FORMATS
from unigrf_dist.prepare.source import ColumnMapping, Source, TimeUnit


def columns_as_before(folder: Path, manifest: Manifest, typed: ColumnMapping | None) -> ColumnMapping | None:
    """The columns of the data set ``folder``, with the files of side features that are typed now.

    Args:
        folder: folder of the data set, for messages.
        manifest: its manifest.
        typed: what is typed now; what is not typed there has its default.

    Raises:
        UserError: what is typed contradicts the data set.
    """
    if manifest.source not in MAPPED_FORMATS:
        return None
    before = _recorded(manifest)
    if typed is None:
        return before
    default, recorded = ColumnMapping().as_arguments(), before.as_arguments()
    for name, value in typed.as_arguments().items():
        if value != default.get(name) and value != recorded.get(name):
            refuse_contradiction(folder, name, recorded.get(name, "none"), value)
    if typed.string_ids and not before.string_ids:
        refuse_contradiction(folder, "ids", "whole numbers", "text")
    for owner, names, known in (
        ("item", typed.item_features, before.item_features),
        ("user", typed.user_features, before.user_features),
    ):
        if names and set(names) != set(known):
            refuse_contradiction(folder, f"{owner} features", ", ".join(known) or "none", ", ".join(names))
    separators = {**before.separators, **typed.separators}
    return replace(before, item_file=typed.item_file, user_file=typed.user_file, separators=separators)


def refuse_other_options(
    into: Path, before: Manifest, format: str, *, drop_duplicates: bool, min_events: int, min_item_events: int
) -> None:
    """Raise UserError where what is typed contradicts the data set ``into``; a default contradicts nothing."""
    if format != before.source:
        refuse_contradiction(into, "format", before.source, format)
    least: Mapping[str, int] = {"min_events": min_events, "min_item_events": min_item_events}
    for name, value in least.items():
        if value not in (1, before.arguments.get(name, 1)):
            refuse_contradiction(into, name, before.arguments.get(name, 1), value)
    if drop_duplicates and not before.arguments.get("drop_duplicates"):
        refuse_contradiction(into, "drop_duplicates", "no", "yes")
    if before.users is None:
        raise UserError(
            f"{into}: was prepared by an older version, which kept no index of users; prepare it again"
        )


def refuse_other_ids(into: Path, before: Manifest, source: Source) -> None:
    """Raise UserError where ids of the files to append are of another kind than those of the data set."""
    if (source.user_type, source.item_type) != (before.raw_user_type, before.raw_item_type):
        refuse_contradiction(
            into,
            "ids of users and items",
            f"{before.raw_user_type} and {before.raw_item_type}",
            f"{source.user_type} and {source.item_type}",
        )


def refuse_contradiction(folder: Path, name: str, before: object, now: object) -> None:
    """Raise UserError: an option of an append is another than that of the data set."""
    raise UserError(
        f"{folder}: was prepared with {name}: {before}, not {now}; leave the option out, an append takes it over"
    )


def _recorded(manifest: Manifest) -> ColumnMapping:
    found = manifest.arguments
    text = {name: str(value) for name, value in found.items()}
    return ColumnMapping(
        user=text["column user"],
        item=text["column item"],
        timestamp=text["column timestamp"],
        title=text.get("column title"),
        behaviours=_listed(text.get("column behaviour", ""), ", "),
        event_type=text.get("event_type"),
        buckets={name: [float(e) for e in edges.split(",")] for name, edges in _pairs(found, "buckets").items()},
        partitions=_listed(text.get("partition", ""), ", "),
        string_ids=manifest.raw_user_type == "string",
        time_unit=cast(TimeUnit, text["time_unit"]),
        delimiter=text.get("delimiter"),
        quoted="quotes" not in text,
        encoding=text.get("encoding", "utf-8"),
        separators=_pairs(found, "separator"),
        item_features=list(manifest.features_of("item")),
        user_features=list(manifest.features_of("user")),
    )


def _listed(text: str, separator: str) -> list[str]:
    return text.split(separator) if text else []


def _pairs(arguments: Mapping[str, Any], name: str) -> dict[str, str]:
    """``NAME=VALUE; NAME=VALUE`` by name; a value may hold any character but an end of line."""
    text = str(arguments.get(name, ""))
    return {found[1]: found[2] for found in re.finditer(r"(?:^|; )(\w+)=(.*?)(?=; \w+=|$)", text)}

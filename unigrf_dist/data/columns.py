"""Columns of one's own files, as the command line names them."""

from __future__ import annotations

from collections.abc import Sequence

from unigrf_dist.data.formats import MAPPED_FORMATS
from unigrf_dist.data.source import ColumnMapping, TimeUnit
from unigrf_dist.errors import UserError

_MEANINGS = ("user", "item", "timestamp", "behaviour")


def column_mapping(
    format: str, columns: Sequence[str], *, string_ids: bool, time_unit: TimeUnit, delimiter: str
) -> ColumnMapping | None:
    """The mapping that ``--column MEANING=NAME`` options describe; None for formats that know their columns.

    Raises:
        UserError: an option is malformed, or a meaning is given twice; columns for a format that knows its own.
    """
    if format not in MAPPED_FORMATS:
        if columns or string_ids or time_unit != "s" or delimiter != ",":
            raise UserError(
                f"format {format!r} knows its columns; column options are for {', '.join(MAPPED_FORMATS)}"
            )
        return None
    named: dict[str, str] = {}
    behaviours = []
    for option in columns:
        meaning, separator, name = option.partition("=")
        if not separator or not name or meaning not in _MEANINGS:
            raise UserError(f"--column {option}: write MEANING=NAME with MEANING one of {', '.join(_MEANINGS)}")
        if meaning == "behaviour":
            behaviours.append(name)
        elif meaning in named:
            raise UserError(f"--column {option}: {meaning} is given twice ({named[meaning]} before)")
        else:
            named[meaning] = name
    return ColumnMapping(
        **named, behaviours=tuple(behaviours), string_ids=string_ids, time_unit=time_unit, delimiter=delimiter
    )
